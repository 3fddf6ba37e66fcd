"""Reader: what is there and cannot be reached ends the work, and is no broken image."""

import contextlib
import os
import resource
import tempfile
from pathlib import Path

import pytest

from imgcls.data import open_dataset
from imgcls.data.reader import Reader
from imgcls.errors import BadDataset, BrokenImage, StorageUnavailable

NOBODY = 65534


@contextlib.contextmanager
def without_privileges():
    """Root may read every file; somebody else may not."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def open_folder():
    """A folder whose parents everybody may pass, unlike those of `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.mark.parametrize("kept", ["cat/03.jpg", "cat"])
def test_a_file_that_may_not_be_read_is_named_and_nothing_is_stored(
    pets, open_folder, monkeypatch, limit, kept
):
    for name, data in pets.items():
        (open_folder / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (open_folder / "pets" / name).write_bytes(data)
    for home in ("home", "other"):
        (open_folder / home).mkdir()
        (open_folder / home).chmod(0o777)
    monkeypatch.setenv("IMGCLS_HOME", str(open_folder / "home"))
    limit()
    tag = open_dataset(open_folder / "pets").tag
    monkeypatch.setenv("IMGCLS_HOME", str(open_folder / "other"))
    limit()
    (open_folder / "pets" / kept).chmod(0)
    with without_privileges(), pytest.raises(BadDataset, match=f"{kept} .*may (not )?be read"):
        open_dataset(open_folder / "pets")
    kept_files = [path.name for path in (open_folder / "other").glob("datasets/*")]
    assert kept_files in ([], [".lock"])
    (open_folder / "pets" / kept).chmod(0o755)
    with without_privileges():
        assert open_dataset(open_folder / "pets").tag == tag


def test_a_file_that_cannot_be_opened_for_now_is_no_broken_image(pets, folder_of):
    reader = Reader("folder", folder_of(pets))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        with pytest.raises(StorageUnavailable, match=r"cat/00\.jpg cannot be read \(Too many"):
            reader.read(0, 0, 0, 0, 0, b"cat/00.jpg")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert reader.read(0, 0, 0, 0, 0, b"cat/00.jpg") == pets["cat/00.jpg"]
    with pytest.raises(BrokenImage, match="cannot be opened"):
        reader.read(0, 0, 0, 0, 0, b"cat/gone.jpg")


def test_an_archive_whose_disk_fails_has_no_broken_images():
    memory = Path("/proc/self/mem")  # to read where nothing is mapped is an error of the device
    with pytest.raises(StorageUnavailable, match=r"/proc/self/mem cannot be read \(Input/output"):
        Reader("tar", memory).read(0, 100, 100, 0, 0, None)
