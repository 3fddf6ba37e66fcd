"""Hostile archives: a clear refusal, or a row that says what is wrong; never much memory."""

import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib

import pytest

from imgcls.data import open_dataset
from imgcls.errors import BadArchive, BadDataset

MB = 10**6


def crc_of_zeros(size):
    crc = 0
    for start in range(0, size, MB):
        crc = zlib.crc32(bytes(min(MB, size - start)), crc)
    return crc


def zeros(size, front=b""):
    """Deflated zeros behind some other bytes."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    parts = [squeeze.compress(front)]
    parts += [squeeze.compress(bytes(min(MB, size - at))) for at in range(0, size, MB)]
    return b"".join([*parts, squeeze.flush()])


def add_packed(archive, name, packed, size, crc):
    """A member whose deflated bytes are given."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.header_offset = archive.fp.tell()
    info.CRC, info.compress_size, info.file_size = crc, len(packed), size
    archive.fp.write(info.FileHeader(zip64=True) + packed)
    archive.filelist.append(info)
    archive.NameToInfo[name] = info
    archive.start_dir = archive.fp.tell()
    archive._didModify = True


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
    path, size = zip_of(pets), 10_000 * MB
    packed = zeros(size // 40)
    crc = crc_of_zeros(size // 40)
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(40):
            add_packed(archive, f"cat/zeros{number}.jpg", packed, size // 40, crc)
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
    path, size = zip_of(pets, method=zipfile.ZIP_STORED), 250 * MB
    with zipfile.ZipFile(path, "a") as archive:
        add_packed(archive, "cat/zeros.jpg", zeros(size), size, crc_of_zeros(size))
    answer, used = opened(path, home)
    assert answer == ["unsupported_image"]
    assert used < 100


def million_empty(path, good=b""):
    """A zip of a million files of no bytes, in two classes."""
    count, local = 1_000_000, struct.pack("<4s5H3L2H", b"PK\3\4", 20, *[0] * 9)
    fixed = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *[0] * 7, 12, *[0] * 6)
    directory = b"".join(fixed + b"%d/%06d.jpg" % (number % 2, number) for number in range(count))
    sizes = (count, count, len(directory), len(local))
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, *sizes)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(local) + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    path.write_bytes(local + directory + end64 + locator + end)


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


def huge(picture, format, side=60_000):
    """A small file whose header claims `side` x `side` pixels."""
    data = bytearray(picture(1, fmt=format))
    if format == "PNG":
        data[16:24] = struct.pack(">LL", side, side)
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    elif format == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
    elif format == "BMP":
        data[18:26] = struct.pack("<ll", side, side)
    else:
        for tag, pixels in [(256, 12), (257, 10)]:
            entry = struct.pack("<HHL", tag, 4, 1)
            assert entry in data
            data = data.replace(entry + struct.pack("<L", pixels), entry + struct.pack("<L", side))
    return bytes(data)


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF"])
def test_a_picture_of_sixty_thousand_pixels_a_side_is_a_row_with_an_error(
    pets, zip_of, picture, format
):
    path = zip_of(pets | {f"cat/huge.{format.lower()}": huge(picture, format)})
    with open_dataset(path) as dataset:
        assert len(dataset) == 21
        (error,) = dataset.index["error"].drop_null().to_pylist()
        assert error.startswith("image_too_large: The image has ")


def test_a_png_of_sixty_thousand_pixels_a_side_takes_no_memory(pets, zip_of, picture, home):
    answer, used = opened(zip_of(pets | {"cat/huge.png": huge(picture, "PNG")}), home)
    assert answer == ["image_too_large"]
    assert used < 60
