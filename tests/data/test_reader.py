"""Reader: what is there and cannot be reached ends the work, and is no broken image."""

import contextlib
import errno
import os
import resource
import tempfile
import zipfile
from pathlib import Path

import pytest

from imgcls import offline
from imgcls.data import DatasetStore, open_dataset
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


@contextlib.contextmanager
def no_more_files():
    """Every further file that is to be opened is one too many."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(
    ("kept", "mode"), [("cat/03.jpg", 0), ("cat", 0), ("cat", 0o744), (".", 0)]
)
def test_a_file_that_may_not_be_read_is_named_and_nothing_is_stored(
    pets, open_folder, monkeypatch, limit, kept, mode
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
    (open_folder / "pets" / kept).chmod(mode)
    told = rf"pets/?({kept})?\S* .*may (not )?be read"
    with without_privileges(), pytest.raises(BadDataset, match=told):
        open_dataset(open_folder / "pets")
    kept_files = [path.name for path in (open_folder / "other").glob("datasets/*")]
    assert kept_files in ([], [".lock"])
    (open_folder / "pets" / kept).chmod(0o755)
    with without_privileges():
        assert open_dataset(open_folder / "pets").tag == tag


def test_a_file_that_cannot_be_opened_for_now_is_no_broken_image(pets, folder_of):
    reader = Reader("folder", folder_of(pets))
    with no_more_files():
        with pytest.raises(StorageUnavailable, match=r"cat/00\.jpg cannot be read \(Too many"):
            reader.read(0, 0, 0, 0, 0, b"cat/00.jpg")
        with pytest.raises(StorageUnavailable, match="Too many"):
            Reader("folder", reader.path)
    assert reader.read(0, 0, 0, 0, 0, b"cat/00.jpg") == pets["cat/00.jpg"]
    with pytest.raises(BrokenImage, match="cannot be opened"):
        reader.read(0, 0, 0, 0, 0, b"cat/gone.jpg")


def test_an_archive_whose_disk_fails_has_no_broken_images():
    memory = Path("/proc/self/mem")  # to read where nothing is mapped is an error of the device
    with pytest.raises(StorageUnavailable, match=r"/proc/self/mem cannot be read \(Input/output"):
        Reader("tar", memory).read(0, 100, 100, 0, 0, None)


@pytest.mark.parametrize("file", ["pets.zip", "pets.tar", "pets.tar.gz"])
def test_an_archive_whose_disk_fails_while_it_is_listed_is_named(
    pets, zip_of, tar_of, monkeypatch, file
):
    path = (
        zip_of(pets) if file == "pets.zip" else tar_of(pets, file, "w:gz" if "g" in file else "w")
    )

    def failing(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(StorageUnavailable, match=rf"{file} cannot be read \(Input/output"):
        open_dataset(path)


def test_what_the_store_keeps_and_cannot_read_is_not_called_damaged(
    pets, open_folder, monkeypatch, limit
):
    monkeypatch.setenv("IMGCLS_HOME", str(open_folder / "home"))
    limit()
    with zipfile.ZipFile(open_folder / "pets.zip", "w") as archive:
        for name, data in pets.items():
            archive.writestr(name, data)
    store = DatasetStore()
    tag = store.add(open_folder / "pets.zip").tag
    folder = store.folder(tag)
    [index] = folder.glob("index-*")
    for kept in (index, folder / "dataset.json", open_folder / "pets.zip"):
        mode = kept.stat().st_mode
        kept.chmod(0)
        with without_privileges(), pytest.raises(BadDataset, match=f"{kept.name} may not be read"):
            store.open(tag).read(0)
        kept.chmod(mode)
    assert store.open(tag).read(0) == pets["cat/00.jpg"]


def test_a_folder_of_images_to_be_predicted_that_may_not_be_read_is_named(open_folder, pets):
    for name in ("a/b.jpg", "c/d.jpg"):
        (open_folder / name).parent.mkdir()
        (open_folder / name).write_bytes(pets["cat/00.jpg"])
    (open_folder / "c").chmod(0)
    refused = pytest.raises(BadDataset, match="c may not be read")
    with without_privileges(), offline.Inputs([str(open_folder)]) as inputs, refused:
        list(inputs)
