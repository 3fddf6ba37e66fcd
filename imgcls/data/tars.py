"""Tar archives: headers read into entries, and compressed ones unpacked to a plain tar first.

Parsed here and not by `tarfile`, which takes seconds over 120,000 members and reads extended
headers of any size into memory. Formats: ustar, GNU long names, pax `path` and `size`
(POSIX.1-2001). Symbolic links, devices and sparse files are passed over, never
followed; a hard link is the earlier member that it names.
"""

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from imgcls.data.entries import (
    NO_CRC,
    Budget,
    Listing,
    is_litter,
    is_wanted,
    make_entries,
    make_listing,
    printable,
    safe_name,
)
from imgcls.errors import BadArchive

_BLOCK = 512
_MAX_EXTENDED = 1 << 20
"""Bytes that an extended header (a long name, pax records) may have."""
_MAX_RECORDS = 1024
"""Records that one pax header may have; those of ordinary files have a few."""
_MAX_DIGITS = 20
"""Of a number in a pax header."""
_MAX_NAME = 4096
"""Bytes of a file's name: no system unpacks longer ones."""
_REGULAR = (b"0", b"\0", b"7")
_HARD_LINK = b"1"
_LINKS = (_HARD_LINK, b"2")


@dataclass(slots=True)
class _Extended:
    """What extended headers say of the file behind them."""

    path: bytes = b""
    link: bytes = b""
    size: int | None = None
    sparse: bool = False


def compression(head: bytes) -> str | None:
    """`gz`, `bz2` or `xz` by the first bytes of a file."""
    if head[:2] == b"\x1f\x8b":
        return "gz"
    if head[:3] == b"BZh":
        return "bz2"
    return "xz" if head[:6] == b"\xfd7zXZ\0" else None


def is_tar(head: bytes) -> bool:
    """Whether the first block of a file is the header of a tar archive."""
    return len(head) >= _BLOCK and _checksum(head[:_BLOCK])


def unpack(source: Path, target: Path, how: str, budget: Budget) -> None:
    """Decompress `source` into the plain tar `target`. Raises `BadArchive`."""
    try:
        with _opened(source, how) as packed, target.open("xb") as plain:
            while block := packed.read(1 << 20):
                if budget.bytes == 0 and not is_tar(block):
                    raise BadArchive(
                        f"{source.name} is not a zip or tar archive; pack the image folder as one."
                    )
                budget.spend_bytes(len(block))
                plain.write(block)
            plain.flush()
            os.fsync(plain.fileno())
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError) as err:
        raise BadArchive(f"{source.name} is damaged or was cut short; pack it again.") from err
    except OSError as err:
        if err.errno is not None:
            raise
        raise BadArchive(f"{source.name} is damaged or was cut short; pack it again.") from err


def _opened(source: Path, how: str) -> BinaryIO:
    if how == "gz":
        return cast(BinaryIO, gzip.open(source, "rb"))
    return cast(BinaryIO, bz2.open(source, "rb") if how == "bz2" else lzma.open(source, "rb"))


def list_tar(fd: int, budget: Budget) -> Listing:
    """The image files of the plain tar behind `fd`. Raises `BadArchive`."""
    end = os.fstat(fd).st_size
    found: dict[str, tuple[int, int, int, int, int]] = {}
    others = links = position = 0
    extended = _Extended()
    while True:
        header = os.pread(fd, _BLOCK, position)
        if len(header) < _BLOCK:  # a whole archive ends with blocks of zeros
            raise BadArchive("The tar archive was cut short; pack it again.")
        if not header.strip(b"\0"):
            break
        if not _checksum(header):
            raise BadArchive("The tar archive is damaged: a header in it cannot be read.")
        position += _BLOCK
        kind = header[156:157]
        size = _number(header[124:136]) if extended.size is None else extended.size
        data, position = position, position + -(-size // _BLOCK) * _BLOCK
        if data + size > end:
            raise BadArchive("The tar archive was cut short; pack it again.")
        if kind in (b"x", b"L", b"g", b"K"):
            budget.spend_header(size)
            if kind in (b"x", b"L", b"K"):
                _extend(extended, kind, _body(fd, data, size))
            continue
        if len(extended.path) > _MAX_NAME:
            raise BadArchive("The tar archive is damaged: a file name in it is too long.")
        name = safe_name(_decode(extended.path or _name(header)))
        sparse, linked, extended = extended.sparse, extended.link, _Extended()
        if kind == b"5" or name.endswith("/"):
            budget.spend_header(size)
            continue
        budget.spend(size)
        if sparse or is_litter(name):
            continue
        if kind in _LINKS:
            target = _decode(linked or header[157:257]).removeprefix("./")
            if kind == _HARD_LINK and is_wanted(name) and target in found:
                others += name in found
                found[name] = found[target]
                budget.spend_bytes(found[name][2])
            else:
                links += 1
            continue
        if kind not in _REGULAR:
            continue
        if not is_wanted(name):
            others += 1
            continue
        # A name given twice: the later one counts, as it would after unpacking.
        others += name in found
        found[name] = (data, size, size, 0, NO_CRC)
    return make_listing("tar", make_entries(list(found), list(found.values())), others, links)


def _checksum(header: bytes) -> bool:
    """The header's own check: the sum of its bytes, its checksum field read as spaces."""
    try:
        stated = int(header[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return stated == sum(header) - sum(header[148:156]) + 8 * 32


def _number(field: bytes) -> int:
    try:
        if field[:1] == b"\x80":  # GNU: binary, for sizes from 8 GiB
            value = int.from_bytes(field[1:], "big")
        else:
            value = int(field.strip(b" \0") or b"0", 8)
    except ValueError as err:
        raise BadArchive("The tar archive is damaged: a size in it cannot be read.") from err
    if not 0 <= value < 2**62:
        raise BadArchive("The tar archive is damaged: a size in it cannot be.")
    return value


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].partition(b"\0")[0]):
        return prefix + b"/" + name
    return name


def _body(fd: int, position: int, size: int) -> bytes:
    if size > _MAX_EXTENDED:
        raise BadArchive("The tar archive is damaged: a header in it is too long.")
    return os.pread(fd, size, position)


def _extend(extended: _Extended, kind: bytes, body: bytes) -> None:
    """Add what a long name or the records of a pax header say."""
    if kind == b"L":
        extended.path = body.rstrip(b"\0")
        return
    if kind == b"K":
        extended.link = body.rstrip(b"\0")
        return
    for key, value in _pax(body):
        if key == b"path":
            extended.path = value
        elif key == b"linkpath":
            extended.link = value
        elif key == b"size":
            extended.size = _decimal(value)
        elif key.startswith(b"GNU.sparse"):
            extended.sparse = True


def _pax(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of records `"<length> <key>=<value>\\n"`."""
    position = records = 0
    while position < len(body):
        records += 1
        if records > _MAX_RECORDS:
            raise BadArchive("The tar archive is damaged: a pax header has too many records.")
        space = body.find(b" ", position, position + _MAX_DIGITS + 1)
        end = position + _decimal(body[position : max(space, position)])
        if not space + 3 <= end <= len(body):
            raise BadArchive("The tar archive is damaged: a pax header cannot be read.")
        key, _, value = body[space + 1 : end].removesuffix(b"\n").partition(b"=")
        yield key, value
        position = end


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > _MAX_DIGITS:
        raise BadArchive("The tar archive is damaged: a pax header cannot be read.")
    return int(digits)


def _decode(raw: bytes) -> str:
    return printable(raw.partition(b"\0")[0].decode("utf-8", "surrogateescape"))
