"""Hostile archives: a clear refusal, or a row that says what is wrong; never much memory."""

import json
import os
import subprocess
import sys
import zipfile

import pytest

from imgcls.data import open_dataset
from imgcls.errors import BadArchive, BadDataset
from tests.hostile_archives import MB, add_zeros, claim_size, million_empty

MEASURE = """
import json, resource, sys
from imgcls.data import open_dataset
from imgcls.errors import ImgclsError
import pyarrow.parquet
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    with open_dataset(sys.argv[1]) as dataset:
        errors = dataset.index["error"].drop_null().to_pylist()
        answer = sorted({error.split(":")[0] for error in errors})
except ImgclsError as err:
    answer = [err.status, err.code, err.message]
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([answer, (used + children) / 1024]))
"""


def opened(path, home):
    """What a process of its own makes of a dataset, and the MiB that took beside its imports."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        env=os.environ | {"BENTOML_HOME": str(home.parent)},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ten_gigabytes_of_zeros_in_ten_megabytes_are_refused(pets, zip_of, home):
    path = zip_of(pets)
    add_zeros(path)
    assert path.stat().st_size < 12 * MB
    answer, used = opened(path, home)
    assert answer[:2] == [400, "bad_archive"]
    assert "more than 100 times its size" in answer[2]
    assert used < 100
    assert not list((home / "datasets").glob("*/*"))


def test_zeros_in_a_compressed_tar_are_refused_before_they_fill_the_disk(pets, tar_of, home):
    path = tar_of(pets | {"cat/zeros.jpg": bytes(600 * MB)}, "a.tar.gz", "w:gz")
    answer, used = opened(path, home)
    assert answer[:2] == [400, "bad_archive"]
    assert used < 100
    assert not list((home / "datasets").glob(".tmp-*"))


def test_a_file_of_zeros_is_no_picture_and_is_never_unpacked(pets, zip_of, home):
    path = zip_of(pets, method=zipfile.ZIP_STORED)
    add_zeros(path, size=250 * MB, files=1)
    answer, used = opened(path, home)
    assert answer == ["unsupported_image"]
    assert used < 100


def test_a_million_empty_entries_are_refused_in_little_memory(tmp_path, home):
    million_empty(tmp_path / "empty.zip")
    answer, used = opened(tmp_path / "empty.zip", home)
    assert answer[:2] == [400, "bad_dataset"]
    assert "1,000,000 images are empty" in answer[2]
    assert used < 500


def test_more_entries_than_are_allowed_are_refused(tmp_path, limit):
    million_empty(tmp_path / "empty.zip")
    limit(max_archive_files=999_999)
    with pytest.raises(BadArchive, match="more than 999,999 files"):
        open_dataset(tmp_path / "empty.zip")


def test_archives_in_an_archive_are_files_like_others(pets, zip_of, tar_of):
    inner = zip_of(pets, "inner.zip").read_bytes()
    only = zip_of({"a/inner.zip": inner, "b/inner.tar": tar_of(pets).read_bytes()}, "only.zip")
    with pytest.raises(BadDataset, match="no images, only 2 other files"):
        open_dataset(only)
    beside = zip_of(pets | {"cat/inner.zip": inner, "dog/zip.jpg": inner}, "beside.zip")
    with open_dataset(beside) as dataset:
        assert len(dataset) == 21
        errors = dataset.index["error"].drop_null().to_pylist()
        assert [error.split(":")[0] for error in errors] == ["unsupported_image"]


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF"])
def test_a_picture_of_sixty_thousand_pixels_a_side_is_a_row_with_an_error(
    pets, zip_of, picture, format
):
    path = zip_of(pets | {f"cat/huge.{format.lower()}": claim_size(picture(1, fmt=format), format)})
    with open_dataset(path) as dataset:
        assert len(dataset) == 21
        (error,) = dataset.index["error"].drop_null().to_pylist()
        assert error.startswith("image_too_large: The image has ")


def test_a_png_of_sixty_thousand_pixels_a_side_takes_no_memory(pets, zip_of, picture, home):
    answer, used = opened(
        zip_of(pets | {"cat/huge.png": claim_size(picture(1, fmt="PNG"), "PNG")}), home
    )
    assert answer == ["image_too_large"]
    assert used < 60
