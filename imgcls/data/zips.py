"""Zip archives: the central directory, read into entries.

Parsed here and not by `zipfile`, which takes 1.0 s over 120,000 names and refuses a whole archive
for one badly encoded name. Layout after PKWARE's APPNOTE 6.3.10 (sections 4.3 to 4.5), zip64
included. The data itself is read by `reader.py`.
"""

import os
import struct

from imgcls.data.entries import Budget, Listing, is_image, is_litter, make_entries, safe_name
from imgcls.errors import BadArchive

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4sxB2x2H4x3L3H4x2L")
"""Signature, system, flags, method, CRC, packed, size, three lengths, attributes, offset."""
_MAX_COMMENT = 65_535
_U32 = 0xFFFFFFFF
_ENCRYPTED = 0x1
_UNIX, _FILE_TYPE, _LINK = 3, 0o170000, 0o120000
STORED, DEFLATED = 0, 8


def is_zip(fd: int) -> bool:
    """Whether the file ends as a zip archive does."""
    return _find_end(fd) is not None


def list_zip(fd: int, budget: Budget) -> Listing:
    """The image files of the archive behind `fd`. Raises `BadArchive`."""
    try:
        return _list(fd, budget)
    except struct.error as err:
        raise BadArchive("The zip archive is damaged: its list of files breaks off.") from err


def _find_end(fd: int) -> tuple[int, bytes] | None:
    """Position and bytes of the end-of-central-directory record."""
    size = os.fstat(fd).st_size
    start = max(0, size - _END.size - _MAX_COMMENT)
    tail = os.pread(fd, size - start, start)
    at = len(tail)
    while (at := tail.rfind(b"PK\x05\x06", 0, at)) >= 0:
        record = tail[at : at + _END.size]
        # The comment must reach the end of the file: a signature inside a comment does not.
        if len(record) == _END.size and at + _END.size + _END.unpack(record)[7] == len(tail):
            return start + at, record
    return None


def _directory(fd: int) -> tuple[bytes, int, int]:
    """The central directory, its number of entries, and the bytes put before the archive."""
    found = _find_end(fd)
    if found is None:
        raise BadArchive("The file is not a zip archive, or it was cut short; pack it again.")
    end, record = found
    _, disk, first_disk, _, count, length, offset, _ = _END.unpack(record)
    tail = end
    if _U32 in (length, offset) or count == 0xFFFF:
        at = end - _END64_LOCATOR.size
        locator = os.pread(fd, _END64_LOCATOR.size, at) if at >= 0 else b""
        if locator[:4] == b"PK\x06\x07":
            for tail in (at - _END64.size, _END64_LOCATOR.unpack(locator)[2]):
                record = os.pread(fd, _END64.size, tail) if 0 <= tail < end else b""
                if record[:4] == b"PK\x06\x06":
                    break
            else:
                raise BadArchive("The zip archive is damaged: its zip64 record is missing.")
            _, _, _, _, disk, first_disk, _, count, length, offset = _END64.unpack(record)
    if disk != first_disk:
        raise BadArchive("The zip archive is one part of several; pack it as a single file.")
    before = tail - length - offset
    if before < 0:
        raise BadArchive("The zip archive is damaged: its list of files breaks off.")
    return os.pread(fd, length, offset + before), count, before


def _list(fd: int, budget: Budget) -> Listing:
    directory, count, before = _directory(fd)
    found: dict[str, tuple[int, int, int, int, int]] = {}
    others = position = 0
    for _ in range(count):
        signature, system, flags, method, crc, packed, size, *lengths, external, offset = (
            _CENTRAL.unpack_from(directory, position)
        )
        name_length, extra_length, comment_length = lengths
        if signature != b"PK\x01\x02":
            raise BadArchive("The zip archive is damaged: its list of files breaks off.")
        position += _CENTRAL.size
        raw = directory[position : position + name_length]
        position += name_length
        if _U32 in (packed, size, offset):
            extra = directory[position : position + extra_length]
            packed, size, offset = _zip64(extra, packed, size, offset)
        position += extra_length + comment_length
        name = safe_name(_decode(raw))
        if name.endswith("/"):
            continue
        budget.spend(size)
        if is_litter(name):
            continue
        if system == _UNIX and (external >> 16) & _FILE_TYPE == _LINK:
            continue
        if not is_image(name):
            others += 1
            continue
        if flags & _ENCRYPTED:
            raise BadArchive(f"{name[:200]!r} is encrypted; pack the archive without a password.")
        if method not in (STORED, DEFLATED):
            raise BadArchive(
                f"{name[:200]!r} is packed with method {method}; pack the archive again with "
                "deflate, or without compression."
            )
        # A name given twice: the later one counts, as it would after unpacking.
        found[name] = (offset + before, packed, size, method, crc)
    return Listing("zip", make_entries(list(found), list(found.values())), others)


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
