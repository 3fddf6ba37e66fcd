"""Zip archives: the central directory, read into entries.

Parsed here and not by `zipfile`, which takes 1.0 s over 120,000 names and refuses a whole archive
for one badly encoded name. Layout after PKWARE's APPNOTE 6.3.10 (sections 4.3 to 4.5), zip64
included. The data itself is read by `reader.py`.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from imgcls.data.entries import (
    Budget,
    Listing,
    are_plain_images,
    litter_among,
    make_entries,
    make_listing,
    safe_names,
    wanted_among,
)
from imgcls.errors import BadArchive

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = np.dtype(
    [
        *[("signature", "S4"), ("made_by", "u1"), ("system", "u1"), ("needs", "<u2")],
        *[("flags", "<u2"), ("method", "<u2"), ("time", "<u4"), ("crc", "<u4")],
        *[("packed", "<u4"), ("size", "<u4"), ("name", "<u2"), ("extra", "<u2")],
        *[("comment", "<u2"), ("disk", "<u2"), ("internal", "<u2"), ("external", "<u4")],
        ("offset", "<u4"),
    ]
)
"""The fixed part of an entry; `name`, `extra` and `comment` are lengths."""
_SIGNATURE = b"PK\x01\x02"
_LENGTHS, _LENGTHS_AT = struct.Struct("<3H"), 28
_MAX_COMMENT = 65_535
_U32 = 0xFFFFFFFF
_ENCRYPTED = 0x1
_UNIX, _FILE_TYPE, _LINK = 3, 0o170000, 0o120000
STORED, DEFLATED = 0, 8
NO_ARCHIVE = (
    "is not a zip or tar archive, or it was cut short; pack the image folder as .zip, .tar or "
    ".tar.gz."
)
_BREAKS_OFF = "The zip archive is damaged: its list of files breaks off."

Bools = npt.NDArray[np.bool_]
Expect = Callable[[int], None]
Read = Callable[[int, int], bytes]
"""Bytes of an archive: how many, and from where on; fewer at its end."""


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the list of files lies in an archive, and how many it names."""

    start: int
    length: int
    count: int
    before: int
    """Bytes put before the archive, which its offsets do not know of."""


def is_zip(fd: int) -> bool:
    """Whether the file ends as a zip archive does."""
    return _find_end(_reader(fd), os.fstat(fd).st_size) is not None


def list_zip(fd: int, budget: Budget, expect: Expect | None = None) -> Listing:
    """The image files of the archive behind `fd`. Raises `BadArchive`.

    `expect` is told how many files there are before they are listed.
    """
    try:
        return _list(fd, budget, expect)
    except struct.error as err:
        raise BadArchive(_BREAKS_OFF) from err


def _reader(fd: int) -> Read:
    return lambda size, at: os.pread(fd, size, at)


def _find_end(read: Read, size: int) -> tuple[int, bytes] | None:
    """Position and bytes of the end-of-central-directory record."""
    start = max(0, size - _END.size - _MAX_COMMENT)
    tail = read(size - start, start)
    at = len(tail)
    while (at := tail.rfind(b"PK\x05\x06", 0, at)) >= 0:
        record = tail[at : at + _END.size]
        # The comment must reach the end of the file: a signature inside a comment does not.
        if len(record) == _END.size and at + _END.size + _END.unpack(record)[7] == len(tail):
            return start + at, record
    return None


def find_directory(read: Read, size: int) -> Directory:
    """The central directory of an archive of `size` bytes. Raises `BadArchive`."""
    found = _find_end(read, size)
    if found is None:
        raise BadArchive(f"The file {NO_ARCHIVE}")
    end, record = found
    _, disk, first_disk, _, count, length, offset, _ = _END.unpack(record)
    tail = end
    if _U32 in (length, offset) or count == 0xFFFF:
        at = end - _END64_LOCATOR.size
        locator = read(_END64_LOCATOR.size, at) if at >= 0 else b""
        if locator[:4] == b"PK\x06\x07":
            for tail in (at - _END64.size, _END64_LOCATOR.unpack(locator)[2]):
                record = read(_END64.size, tail) if 0 <= tail < end else b""
                if record[:4] == b"PK\x06\x06":
                    break
            else:
                raise BadArchive("The zip archive is damaged: its zip64 record is missing.")
            _, _, _, _, disk, first_disk, _, count, length, offset = _END64.unpack(record)
    if disk != first_disk:
        raise BadArchive("The zip archive is one part of several; pack it as a single file.")
    before = tail - length - offset
    if before < 0:
        raise BadArchive(_BREAKS_OFF)
    return Directory(offset + before, length, count, before)


def _list(fd: int, budget: Budget, expect: Expect | None) -> Listing:
    where = find_directory(_reader(fd), os.fstat(fd).st_size)
    budget.expect(where.count)
    if expect is not None:
        expect(where.count)
    directory = os.pread(fd, where.length, where.start)
    records, starts = _records(directory, where.count)
    names, folders, litter, wanted = _sorted_out(_names(directory, starts, records["name"]))
    packed, size, offset = (records[key].astype(np.int64) for key in ("packed", "size", "offset"))
    for row in np.flatnonzero(np.maximum(np.maximum(packed, size), offset) == _U32).tolist():
        start = int(starts[row]) + int(records["name"][row])
        extra = directory[start : start + int(records["extra"][row])]
        packed[row], size[row], offset[row] = _zip64(
            extra, int(packed[row]), int(size[row]), int(offset[row])
        )
    budget.spend_all(size[~folders])
    links = (records["system"] == _UNIX) & ((records["external"] >> 16) & _FILE_TYPE == _LINK)
    passed = ~folders & ~litter & links
    files = ~folders & ~litter & ~links
    others, wanted = int((files & ~wanted).sum()), files & wanted
    rows = np.flatnonzero(wanted)
    chosen = names if len(rows) == len(names) else [names[row] for row in rows.tolist()]
    # A name given twice: the later one counts, as it would after unpacking.
    found = dict(zip(chosen, rows.tolist(), strict=True))
    others += len(rows) - len(found)
    rows = np.fromiter(found.values(), np.int64, len(found))
    _check_readable(names, records, rows)
    columns = (offset + where.before, packed, size, records["method"], records["crc"])
    numbers = np.stack([np.asarray(column[rows], np.int64) for column in columns], axis=1)
    return make_listing("zip", make_entries(list(found), numbers), others, int(passed.sum()))


def _records(directory: bytes, count: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """The fixed parts of all entries, and where their names begin."""
    if not count:
        return np.empty(0, _CENTRAL), np.empty(0, np.int64)
    # Signatures stand where entries begin, unless a name, an extra field or a comment holds one.
    starts = _marks(directory, count)
    if len(starts) == count:
        records, ends = _at(directory, starts)
        if starts[0] == 0 and (starts[1:] == ends[:-1]).all():
            return records, starts + _CENTRAL.itemsize
    starts = _one_by_one(directory, count)
    return _at(directory, starts)[0], starts + _CENTRAL.itemsize


def _marks(directory: bytes, most: int) -> npt.NDArray[np.int64]:
    """Where signatures stand, ascending; nothing where there are more than `most`."""
    mark = np.frombuffer(_SIGNATURE, np.uint32)[0]
    found: list[npt.NDArray[np.int64]] = []
    for shift in range(min(4, max(len(directory) - 3, 0))):
        words = np.frombuffer(directory, np.uint32, (len(directory) - shift) // 4, shift)
        found.append(np.flatnonzero(words == mark) * 4 + shift)
        if sum(map(len, found)) > most:
            return np.empty(0, np.int64)
    return np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)


def _at(
    directory: bytes, starts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """The fixed parts at these places, and where the entries end."""
    size = _CENTRAL.itemsize
    if starts[-1] + size > len(directory):
        raise BadArchive(_BREAKS_OFF)
    windows = sliding_window_view(np.frombuffer(directory, np.uint8), size)
    records: npt.NDArray[Any] = windows[starts].view(_CENTRAL)[:, 0]
    ends = starts + size
    for length in ("name", "extra", "comment"):
        ends += records[length]
    if ends[-1] > len(directory) or (records["signature"] != _SIGNATURE).any():
        raise BadArchive(_BREAKS_OFF)
    return records, ends


def _one_by_one(directory: bytes, count: int) -> npt.NDArray[np.int64]:
    """Where each entry begins: behind the one before it."""
    starts, position = [], 0
    size, unpack = _CENTRAL.itemsize, _LENGTHS.unpack_from
    for _ in range(count):
        starts.append(position)
        name, extra, comment = unpack(directory, position + _LENGTHS_AT)
        position += size + name + extra + comment
    return np.array(starts, np.int64)


def _names(
    directory: bytes, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.uint16]
) -> list[str]:
    first, last = starts.tolist(), (starts + lengths).tolist()
    text = directory.decode("latin-1")
    names = [text[start:end] for start, end in zip(first, last, strict=True)]
    text = "\n".join(names)
    # All at once, unless something in one of them asks for more.
    if text.isascii() and not any(mark in text for mark in ("\0", "\\")):
        return names
    return [_decode(directory[start:end]) for start, end in zip(first, last, strict=True)]


def _sorted_out(names: list[str]) -> tuple[list[str], Bools, Bools, Bools]:
    """Safe names; which are folders, litter, and names of what is looked for."""
    nothing = np.zeros(len(names), bool)
    if are_plain_images(names):
        return names, nothing, nothing, ~nothing
    names = safe_names(names)
    folders = np.array([name[-1:] == "/" for name in names], bool)
    return names, folders, litter_among(names), wanted_among(names)


def _check_readable(
    names: list[str], records: npt.NDArray[Any], rows: npt.NDArray[np.int64]
) -> None:
    flags, methods = records["flags"][rows], records["method"][rows]
    for row in rows[(flags & _ENCRYPTED) != 0].tolist():
        raise BadArchive(f"{names[row][:200]!r} is encrypted; pack the archive without a password.")
    for row in rows[(methods != STORED) & (methods != DEFLATED)].tolist():
        raise BadArchive(
            f"{names[row][:200]!r} is packed with method {records['method'][row]}; pack the "
            "archive again with deflate, or without compression."
        )


def _decode(raw: bytes) -> str:
    # The UTF-8 flag is often missing where the name is UTF-8, and set where it is not.
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = raw.decode("cp437")
    if "\0" in name:
        name = name.partition("\0")[0]
    return name.replace("\\", "/") if "\\" in name else name


def _zip64(extra: bytes, packed: int, size: int, offset: int) -> tuple[int, int, int]:
    """Sizes and offset from the zip64 extra field (header 0x0001), those that are there."""
    position = 0
    while position + 4 <= len(extra):
        header, length = struct.unpack_from("<HH", extra, position)
        if header == 1:
            at = position + 4
            values = []
            for value in (size, packed, offset):
                if value == _U32:
                    (value,) = struct.unpack_from("<Q", extra, at)
                    at += 8
                values.append(value)
            size, packed, offset = values
            if max(values) > 2**62:
                break
            return packed, size, offset
        position += 4 + length
    if max(packed, size, offset) > 2**62:
        raise BadArchive("The zip archive is damaged: a size in it cannot be.")
    return packed, size, offset
