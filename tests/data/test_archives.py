"""Zip and tar: what is read, what is refused, what is harmless."""

import io
import os
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from imgcls.data import DatasetStore, open_dataset
from imgcls.data.entries import Budget
from imgcls.data.reader import Reader
from imgcls.data.source import open_source
from imgcls.data.tars import list_tar
from imgcls.data.zips import list_zip
from imgcls.errors import BadArchive, BadDataset, BrokenImage
from tests.hostile_archives import encrypt


def big_budget():
    return Budget(10**6, 10**12)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_gives_back_the_very_bytes(pets, zip_of, method):
    with open_dataset(zip_of(pets, method=method)) as dataset:
        paths = dataset.index["path"].to_pylist()
        assert paths == sorted(pets)
        assert [dataset.read(row) for row in range(len(dataset))] == [pets[p] for p in paths]


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar.bz2", "w:bz2"),
     ("a.tar.xz", "w:xz")],
)  # fmt: skip
@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_gives_back_the_very_bytes(pets, tar_of, name, mode, kind):
    with open_dataset(tar_of(pets, name, mode, kind)) as dataset:
        paths = dataset.index["path"].to_pylist()
        assert paths == sorted(pets)
        assert [dataset.read(row) for row in range(len(dataset))] == [pets[p] for p in paths]


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_in_tars_are_whole(pets, tar_of, kind):
    deep = "d" * 80
    files = {f"{path[:4]}{deep}/{path[4:]}": data for path, data in pets.items()}
    if kind != tarfile.USTAR_FORMAT:
        files = {f"{'e' * 60}/{path}": data for path, data in files.items()}
    with open_dataset(tar_of(files, kind=kind)) as dataset:
        assert dataset.labels == ["cat", "dog"]
        assert dataset.index["path"][0].as_py() == f"cat/{deep}/00.jpg"


def test_a_zip_that_was_streamed_with_data_descriptors_is_read(pets, tmp_path):
    class Unseekable(io.RawIOBase):
        def __init__(self, path):
            self.file = path.open("wb")

        def writable(self):
            return True

        def write(self, data):
            return self.file.write(data)

        def close(self):
            self.file.close()
            super().close()

    path = tmp_path / "pets.zip"
    with Unseekable(path) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in pets.items():
            archive.writestr(name, data)
    with open_dataset(path) as dataset:
        assert dataset.read(0) == pets["cat/00.jpg"]


def test_a_zip_with_bytes_before_it_or_zip64_fields_is_read(pets, tmp_path):
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in pets.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
    path.write_bytes(b"#!/bin/sh\nexit\n" + path.read_bytes())
    with open_dataset(path) as dataset:
        assert dataset.read(3) == pets["cat/03.jpg"]


def test_zip64_sizes_offsets_and_end_record_are_understood(tmp_path):
    name, data = b"cat/1.jpg", b"12345"
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, 2**32 - 1, 2**32 - 1, 9, 0)
    extra = struct.pack("<HH3Q", 1, 24, len(data), len(data), 0)
    central = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, 2**32 - 1, 2**32 - 1, 9, len(extra), 0, 0,
        0, 0, 2**32 - 1,
    ) + name + extra  # fmt: skip
    start = len(local) + len(name) + len(data)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(central), start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + len(central), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    path = tmp_path / "a.zip"
    path.write_bytes(local + name + data + central + end64 + locator + end)
    with path.open("rb") as file:
        entries = list_zip(file.fileno(), big_budget()).entries
    assert (entries.names, entries.size.tolist(), entries.offset.tolist()) == (
        ["cat/1.jpg"], [5], [0],
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["../cat/1.jpg", "cat/../../1.jpg", "/cat/1.jpg", "C:\\cat\\1.jpg"]
)
def test_names_that_leave_the_archive_are_refused_by_name(pets, zip_of, tar_of, name):
    shown = name.replace("\\", "/")
    with pytest.raises(BadArchive, match="points outside") as caught:
        open_dataset(zip_of(pets | {name: b"x"}))
    assert shown in str(caught.value)
    if "\\" not in name:
        with pytest.raises(BadArchive, match="points outside"):
            open_dataset(tar_of(pets | {name: b"x"}))


def test_links_and_devices_in_a_tar_are_never_followed(pets, tar_of, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(pets["cat/00.jpg"])
    path = tar_of(pets)
    with tarfile.open(path, "a") as archive:
        for kind, name in [
            (tarfile.SYMTYPE, "cat/s.jpg"), (tarfile.LNKTYPE, "cat/h.jpg"),
            (tarfile.CHRTYPE, "cat/c.jpg"), (tarfile.FIFOTYPE, "cat/f.jpg"),
        ]:  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / "secret.jpg")
            archive.addfile(member)
    with open_dataset(path) as dataset:
        assert len(dataset) == len(pets)
        assert DatasetStore().add(path).ignored == 2


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("folder", ["cat", "./cat", "c" * 120])
def test_a_hard_link_in_a_tar_is_the_earlier_member_of_that_name(tar_of, pets, kind, folder):
    files = {path.replace("cat", folder): data for path, data in pets.items()}
    path = tar_of(files, kind=kind)
    with tarfile.open(path, "a", format=kind) as archive:
        first = f"{folder}/00.jpg"
        links = [("again", first), ("nothing", "cat/missing.jpg"), ("00", first)]
        for name, target in links:
            member = tarfile.TarInfo(f"dog/{name}.jpg")
            member.type, member.linkname = tarfile.LNKTYPE, target
            archive.addfile(member)
    with open_dataset(path) as dataset:
        paths = dataset.index["path"].to_pylist()
        assert len(paths) == len(pets) + 1
        assert dataset.read(paths.index("dog/again.jpg")) == pets["cat/00.jpg"]
        assert dataset.read(paths.index("dog/00.jpg")) == pets["cat/00.jpg"]
    # The link to nothing, and the file that another one took the name of.
    assert DatasetStore().add(path).ignored == 2


def test_links_in_a_zip_are_left_out(pets, zip_of):
    path = zip_of(pets)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("cat/link.jpg")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/hostname")
    with open_dataset(path) as dataset:
        assert len(dataset) == len(pets)
    assert DatasetStore().add(path).ignored == 1


def test_an_archive_of_links_alone_is_told_of_them(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"cat/{number}.jpg")
            member.type, member.linkname = tarfile.SYMTYPE, "/photos/1.jpg"
            archive.addfile(member)
    with pytest.raises(BadDataset, match=r"no images in the tar, only 3 links; .*--dereference"):
        open_dataset(tmp_path / "a.tar")


def test_an_encrypted_zip_is_refused(pets, zip_of):
    path = zip_of(pets)
    encrypt(path)
    with pytest.raises(BadArchive, match="encrypted"):
        open_dataset(path)


def test_a_packing_method_that_cannot_be_read_is_named(pets, zip_of):
    with pytest.raises(BadArchive, match="method 14"):
        open_dataset(zip_of(pets, method=zipfile.ZIP_LZMA))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(2000), bytes(4096)])
@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_what_is_no_archive_is_called_that(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadArchive, match="not a zip or tar archive"):
        open_dataset(tmp_path / name)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_archives_cut_short_are_refused_as_damaged(pets, zip_of, tar_of, keep):
    for path in (zip_of(pets), tar_of(pets), tar_of(pets, "a.tgz", "w:gz")):
        data = path.read_bytes()
        cut = data.rstrip(b"\0") if path.suffix == ".tar" else data
        path.write_bytes(cut[: int(len(cut) * keep)])
        with pytest.raises(BadArchive, match=r"cut short|damaged"):
            open_dataset(path)


def test_no_damage_to_an_archive_raises_anything_but_a_refusal(pets, zip_of, tar_of, tmp_path):
    import random

    chance = random.Random(0)
    for path in (zip_of(pets), tar_of(pets)):
        whole = path.read_bytes()
        for n in range(60):
            data = bytearray(whole)
            start = len(data) - 1200 if path.suffix == ".zip" else 0
            for _ in range(chance.choice([1, 3, 30])):
                data[chance.randrange(start, len(data))] = chance.randrange(256)
            broken = tmp_path / f"b{n}{path.suffix}"
            broken.write_bytes(data)
            with broken.open("rb") as file:
                lister = list_zip if path.suffix == ".zip" else list_tar
                try:
                    lister(file.fileno(), big_budget())
                except BadDataset:
                    continue


def test_a_damaged_entry_is_a_row_with_an_error_and_the_rest_is_read(pets, zip_of):
    path = zip_of(pets, method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.find(pets["cat/04.jpg"])
    data[at + 100] ^= 0xFF
    path.write_bytes(data)
    with open_dataset(path) as dataset:
        errors = {row["path"]: row["error"] for row in dataset.index.to_pylist()}
        assert errors.pop("cat/04.jpg").startswith("broken_image: ")
        assert set(errors.values()) == {None}
        row = dataset.index["path"].to_pylist().index("cat/04.jpg")
        assert all(row not in dataset.rows(split) for split in ("train", "val", "test"))
        with pytest.raises(BrokenImage, match="checksum"):
            dataset.read(row)


def test_an_entry_never_unpacks_to_more_than_it_declares(pets, zip_of):
    path = zip_of(pets | {"cat/bomb.jpg": bytes(10_000_000)})
    data = bytearray(path.read_bytes())
    at = data.rfind(b"cat/bomb.jpg") - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    data[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    with open_dataset(path) as dataset:
        errors = [error for error in dataset.index["error"].to_pylist() if error]
        assert errors == ["broken_image: The file is not of the size that the archive states."]


def test_a_file_that_ends_before_its_packed_size_is_refused_by_the_pass_and_by_read(tmp_path):
    """The list of files stands first, and the one file at the very end, in the comment."""
    data, name, path = b"some bytes", b"cat/1.jpg", tmp_path / "a.zip"
    packed, crc = len(data) + 5, zlib.crc32(data)
    fixed = struct.pack("<5H3L2H", 20, 0, 0, 0, 0, crc, packed, len(data), len(name), 0)
    local = b"PK\3\4" + fixed + name + data
    where = 46 + len(name) + 22
    central = b"PK\1\2\x14\3" + fixed + struct.pack("<3H2L", 0, 0, 0, 0, where) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), 0, len(local))
    path.write_bytes(central + end + local)
    entries = open_source(path, tmp_path / "unused.tar").listing.entries
    with Reader("zip", path) as reader:
        [(found, offset)] = reader.scan(entries)
        assert "ends before this file" in str(found)
        with pytest.raises(BrokenImage, match="ends before this file"):
            reader.read(offset, packed, len(data), 0, crc, None)


def test_limits_on_files_and_bytes_hold_before_anything_is_read(pets, zip_of, tar_of, limit):
    limit(max_archive_files=19)
    for path in (zip_of(pets), tar_of(pets), tar_of(pets, "a.tgz", "w:gz")):
        with pytest.raises(BadArchive, match="more than 19 files"):
            open_dataset(path)
    limit(max_archive_files=100, max_archive_mb=1)
    bomb = pets | {"cat/zeros.jpg": bytes(2 << 20)}
    for path in (zip_of(bomb), tar_of(bomb), tar_of(bomb, "b.tgz", "w:gz")):
        with pytest.raises(BadArchive, match="more than 1 MiB"):
            open_dataset(path)


def test_a_zip_of_too_many_files_is_refused_before_its_list_is_read(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"cat/{number}.jpg", b"")
    tracemalloc.start()
    with path.open("rb") as file, pytest.raises(BadArchive, match="more than 19,999 files"):
        list_zip(file.fileno(), Budget(19_999, 1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 19


def test_a_folder_has_no_such_limits(pets, folder_of, limit):
    limit(max_archive_files=5, max_archive_mb=1)
    root = folder_of(pets | {"cat/zeros.jpg": bytes(2 << 20)})
    with open_dataset(root) as dataset:
        assert len(dataset) == 21


def test_a_pax_header_of_any_size_is_not_read_into_memory(tmp_path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 4 << 20
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes((4 << 20) + 1024))
    with pytest.raises(BadArchive, match="too long"):
        open_dataset(tmp_path / "a.tar")


def header(kind: bytes, body: bytes) -> bytes:
    """A tar header of the given kind and what lies behind it, in whole blocks."""
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, len(body)
    return member.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % 512)


def record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return f"{length}".encode() + body


def test_what_pax_headers_say_beside_name_and_size_is_not_kept(tmp_path):
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        for number in range(60):
            file.write(header(tarfile.XHDTYPE, record(f"key{number}", "v" * 1_000_000)))
        file.write(header(tarfile.REGTYPE, b"") + bytes(1024))
    tracemalloc.start()
    with path.open("rb") as file:
        list_tar(file.fileno(), big_budget())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.DIRTYPE]
)
def test_folders_and_extended_headers_count_against_the_limits(tmp_path, kind):
    path = tmp_path / "a.tar"
    path.write_bytes(header(kind, record("path", "cat/1.jpg")) * 41 + bytes(1024))
    with path.open("rb") as file, pytest.raises(BadArchive, match="more than 40 folders and"):
        list_tar(file.fileno(), Budget(20, 1 << 20))
    with path.open("rb") as file, pytest.raises(BadArchive, match="unpacks to more than"):
        list_tar(file.fileno(), Budget(100, 41))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"6 a=b\n" * 174_762, "too many records"),
        (b"9" * 5000 + b" a=b\n", "cannot be read"),
        (record("size", "1" * 5000), "cannot be read"),
        (b"6 a=b", "cannot be read"),
        (b"3 a\n", "cannot be read"),
        (b"a=b\n", "cannot be read"),
    ],
)
def test_a_pax_header_that_makes_no_sense_is_refused_at_once(tmp_path, body, words):
    path = tmp_path / "a.tar"
    path.write_bytes(header(tarfile.XHDTYPE, body) * 3 + bytes(1024))
    began = time.process_time()
    with path.open("rb") as file, pytest.raises(BadArchive, match=words):
        list_tar(file.fileno(), big_budget())
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_file_name_longer_than_any_system_allows_is_refused(tmp_path, kind):
    name = "x" * 5000
    body = record("path", name) if kind == tarfile.XHDTYPE else name.encode()
    path = tmp_path / "a.tar"
    path.write_bytes(header(kind, body) + header(tarfile.REGTYPE, b"") + bytes(1024))
    with path.open("rb") as file, pytest.raises(BadArchive, match="name in it is too long"):
        list_tar(file.fileno(), big_budget())


def test_a_size_in_a_pax_header_counts(tmp_path):
    member = tarfile.TarInfo("cat/1.jpg")
    content = member.tobuf(tarfile.GNU_FORMAT) + b"12345" + bytes(507)
    path = tmp_path / "a.tar"
    path.write_bytes(header(tarfile.XHDTYPE, record("size", "5")) + content + bytes(1024))
    with path.open("rb") as file:
        assert list_tar(file.fileno(), big_budget()).entries.size.tolist() == [5]


def test_names_in_odd_encodings_do_not_matter(pets, zip_of, tar_of, tmp_path):
    files = pets | {"cät/1.jpg": pets["cat/00.jpg"]}
    plain = zip_of(files).read_bytes()
    mangled = plain.replace("cät/1.jpg".encode(), b"c\x81\x82t/1.jpg")
    (tmp_path / "odd.zip").write_bytes(mangled)
    unflagged = bytearray(plain)
    at = unflagged.rfind("cät/1.jpg".encode()) - 46
    unflagged[at + 9] &= 0xF7  # the UTF-8 flag
    (tmp_path / "unflagged.zip").write_bytes(unflagged)
    assert len(open_dataset(tmp_path / "odd.zip").labels) == 3
    assert "cät" in open_dataset(tmp_path / "unflagged.zip").labels
    odd = {os.fsdecode(b"c\xff/1.jpg"): pets["cat/00.jpg"]}
    assert len(open_dataset(tar_of(pets | odd, kind=tarfile.GNU_FORMAT)).labels) == 3


def test_windows_separators_in_a_zip_are_folders(pets, zip_of):
    path = zip_of(pets)
    path.write_bytes(path.read_bytes().replace(b"cat/", b"cat\\").replace(b"dog/", b"dog\\"))
    assert open_dataset(path).labels == ["cat", "dog"]


def test_two_slashes_are_one(pets, zip_of, tar_of, picture):
    files = pets | {"cat//00.jpg": picture(999), "dog///x.jpg": picture(998)}
    for path in (zip_of(files), tar_of(files)):
        with open_dataset(path) as dataset:
            paths = dataset.index["path"].to_pylist()
            assert paths == sorted([*pets, "dog/x.jpg"])
            assert dataset.read(paths.index("cat/00.jpg")) == picture(999)


@pytest.mark.parametrize("field", ["name", "extra", "comment", "all"])
def test_an_entry_may_hold_what_marks_the_begin_of_one(pets, tmp_path, field):
    mark = b"PK\x01\x02"
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in pets.items():
            info = zipfile.ZipInfo(name)
            if name == "cat/03.jpg":
                if field in ("name", "all"):
                    info.filename = "cat/PK\x01\x02.jpg"
                if field in ("extra", "all"):
                    info.extra = b"\xfe\xca\x08\0" + 2 * mark
                if field in ("comment", "all"):
                    info.comment = mark
            archive.writestr(info, data)
    with open_dataset(path) as dataset:
        assert len(dataset) == len(pets)
        assert dataset.index["error"].null_count == len(pets)
        found = {dataset.content_hash(row) for row in range(len(dataset))}
    assert len(found) == len(set(pets.values()))


def test_a_name_given_twice_counts_once_and_the_later_one_wins(pets, tmp_path, picture):
    path = Path(tmp_path / "twice.tar")
    with tarfile.open(path, "w") as archive:
        for name, data in [*pets.items(), ("cat/00.jpg", picture(999))]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with open_dataset(path) as dataset:
        assert len(dataset) == len(pets)
        assert dataset.read(0) == picture(999)
    assert DatasetStore().get("twice").ignored == 1


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_holds_for_a_zip(pets, tmp_path, picture):
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in [*pets.items(), ("cat/00.jpg", picture(999))]:
            archive.writestr(name, data)
    with open_dataset(path) as dataset:
        assert len(dataset) == len(pets)
        assert dataset.read(0) == picture(999)
    assert DatasetStore().get("twice").ignored == 1
