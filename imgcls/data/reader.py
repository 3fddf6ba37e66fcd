"""Reader: the encoded bytes of one entry, straight from a folder, zip or tar.

Archives are read by offset with `os.pread` on one descriptor, so threads share a reader and no
file is ever unpacked to disk. What an entry holds is `images.py`'s business. A file that is there
and cannot be reached (permissions, a disk that fails) is no broken image: it ends the work.
"""

import errno
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from imgcls.data.entries import MAX_IMAGE_BYTES, NO_CRC, Entries, Kind
from imgcls.errors import (
    GONE,
    BadDataset,
    BadImage,
    BrokenImage,
    ImageTooLarge,
    out_of_reach,
)
from imgcls.images import check_signature

_LOCAL = struct.Struct("<4s22x2H")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_SPAN = 1 << 20
"""Bytes fetched at once where small entries lie one behind the other."""
_LARGE, _HEAD = 16 * 2**20, 64
"""Bytes from which on a packed file is looked at before it is unpacked, and those looked at."""
_NOWHERE = {errno.EINVAL, errno.EOVERFLOW, errno.EFBIG}
"""An archive states a place that no file has."""
_SLACK = 512
"""Room for what a local header may hold beyond the fixed part."""


class Reader:
    """Thread-safe. Raises `BadDataset` where the source cannot be opened."""

    def __init__(self, kind: Kind, path: Path) -> None:
        self.kind, self.path = kind, path
        flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if kind == "folder" else 0)
        try:
            self._fd = os.open(path, flags)
        except OSError as err:
            if err.errno not in GONE:
                raise out_of_reach(path, err) from err
            raise BadDataset(
                f"The {kind} {path} of the dataset cannot be opened ({err.strerror}); put it back, "
                "or add the dataset again from where it is now."
            ) from err

    def read(
        self, offset: int, packed: int, size: int, method: int, crc: int, location: bytes | None
    ) -> bytes:
        """One file's bytes; `offset` is that of the data. Raises `BadImage`, and where the file is
        there and out of reach `BadDataset` or `StorageUnavailable`."""
        if size > MAX_IMAGE_BYTES or packed > MAX_IMAGE_BYTES:
            raise too_large(max(size, packed))
        if location is not None:
            return self._read_file(location)
        return _unpack(self._pread(packed, offset), packed, size, method, crc)

    def scan(self, entries: Entries) -> Iterator[tuple[bytes | BadImage, int]]:
        """Bytes (or what is wrong with them) and data offset of every entry, in order.

        Neighbours are fetched together, so sort by offset. A zip's offsets are those of local
        headers here: the offset of the data is found in passing, and is what `read` takes.
        """
        nowhere: list[bytes | None] = [None] * len(entries)
        rows = zip(
            entries.offset.tolist(),
            entries.packed.tolist(),
            entries.size.tolist(),
            entries.method.tolist(),
            entries.crc.tolist(),
            entries.locations or nowhere,
            strict=True,
        )
        zipped = self.kind == "zip"
        end = int(entries.offset[-1] + entries.packed[-1]) + _SLACK if len(entries) else 0
        start, window = 0, b""
        for offset, packed, size, method, crc, location in rows:
            try:
                if location is not None or size > MAX_IMAGE_BYTES or packed > MAX_IMAGE_BYTES:
                    yield self.read(0, packed, size, method, crc, location), 0
                    continue
                at = offset - start
                if at < 0 or at + packed + _SLACK > len(window):
                    window = self._pread(max(packed + _SLACK, min(_SPAN, end - offset)), offset)
                    start, at = offset, 0
                if zipped:
                    # Behind the local header and the two fields of its own length.
                    whole = at + _LOCAL.size <= len(window)
                    mark, name, extra = _LOCAL.unpack_from(window, at) if whole else (b"", 0, 0)
                    if mark != _LOCAL_SIGNATURE:
                        raise BrokenImage("The zip archive is damaged at the place of this file.")
                    at += _LOCAL.size + name + extra
                    offset = start + at
                raw = window[at : at + packed]
                if len(raw) < packed:  # a header longer than the room for it
                    raw = self._pread(packed, offset)
                if method == 0 and len(raw) == packed == size and crc32(raw) == crc:
                    yield raw, offset  # as below, without the call
                else:
                    yield _unpack(raw, packed, size, method, crc), offset
            except BadImage as err:
                yield err, offset

    def _read_file(self, location: bytes) -> bytes:
        try:
            # Links were resolved when the folder was listed; one that appeared since is refused.
            fd = os.open(
                location,
                os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
                dir_fd=self._fd,
            )
        except OSError as err:
            if err.errno in GONE:
                raise BrokenImage(f"The file cannot be opened: {err.strerror}.") from err
            raise out_of_reach(self._name(location), err) from err
        with open(fd, "rb", buffering=0) as file:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise BrokenImage("The file is not a regular file.")
            if info.st_size > MAX_IMAGE_BYTES:
                raise too_large(info.st_size)
            try:
                data = file.read(info.st_size) or b""
                while len(data) < info.st_size and (more := file.read(info.st_size - len(data))):
                    data += more
            except OSError as err:
                raise out_of_reach(self._name(location), err) from err
            return data

    def _name(self, location: bytes) -> str:
        return os.path.join(self.path, os.fsdecode(location))

    def _pread(self, length: int, offset: int) -> bytes:
        try:
            data = os.pread(self._fd, length, offset)
            while 0 < len(data) < length and (
                more := os.pread(self._fd, length - len(data), offset + len(data))
            ):
                data += more
        except (OSError, OverflowError) as err:
            if isinstance(err, OSError) and err.errno not in _NOWHERE:
                raise out_of_reach(self.path, err) from err
            raise BrokenImage("The archive cannot be read at the place of this file.") from err
        return data

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def too_large(size: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"The file has {size >> 20:,} MiB; at most {MAX_IMAGE_BYTES >> 20} MiB are accepted."
    )


def _unpack(raw: bytes, packed: int, size: int, method: int, crc: int) -> bytes:
    if len(raw) < packed:
        raise BrokenImage("The archive ends before this file does.")
    data = raw
    if method != 0:
        try:
            if size > _LARGE:  # packed zeros are small: no memory for what is no picture
                check_signature(zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, _HEAD))
            # Never more than declared, whatever the compressed bytes claim to hold.
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, size + 1)
        except zlib.error as err:
            raise BrokenImage("The compressed bytes of this file are damaged.") from err
    if len(data) != size:
        raise BrokenImage("The file is not of the size that the archive states.")
    if crc != NO_CRC and crc32(data) != crc:
        raise BrokenImage("The file does not match the checksum that the archive states.")
    return data
