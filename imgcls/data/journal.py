"""Journal: what an interrupted pass has measured already, so that the next one goes on from there.

One file of messages a pass, each behind its length and checksum, added to while it runs; the store
removes it when the index is published. Whatever a kill or a full disk left half written ends it.
"""

import fcntl
import hashlib
import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

from imgcls.data import messages
from imgcls.data.entries import Entries
from imgcls.data.measure import NUMBERS, Measures

_VERSION = 2
"""To be raised when the same bytes get other figures: what was measured before is forgotten."""
_FRAME = struct.Struct("<QL")
"""Length and CRC-32 of the message behind it."""


class Journal:
    """Of one pass. Use `opened` as a context manager.

    Without a stem, on a full disk, and while another process makes the same pass, it keeps nothing.
    """

    def __init__(self, stem: Path | None = None) -> None:
        """`stem` is what the name of the file begins with; what follows is of the pass."""
        self.found: dict[int, Measures] = {}
        """What is known already, by the first row of each part."""
        self._stem = stem
        self._path: Path | None = None
        self._file: BinaryIO | None = None

    def opened(self, key: str) -> Self:
        """With what is known of the pass of this key, and open for the rest of it."""
        if self._stem is not None:
            self._path = self._stem.with_name(f"{self._stem.name}-{key[:16]}")
            try:
                self._file = self._path.open("ab+", buffering=0)
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._read(key)
            except OSError:
                self.close()
        return self

    def remove(self) -> None:
        """The file of the pass, which is not needed any more."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def add(self, start: int, found: Measures) -> None:
        """Keep what was found of the rows from `start` on."""
        head, block = messages.of_measures(found)
        self._write(messages.pack(head | {"start": start}, block))

    def _write(self, message: bytes) -> None:
        if self._file is None:
            return
        frame = _FRAME.pack(len(message), zlib.crc32(message)) + message
        try:
            written = self._file.write(frame)
        except OSError:
            written = 0
        if written != len(frame):  # the pass itself may still go well, with the room of this
            self.remove()
            self.close()

    def _read(self, key: str) -> None:
        file = self._file
        assert file is not None
        file.seek(0)
        good = 0
        for message, end in _frames(file):
            head, block = message
            if not good and head != {"key": key}:
                break
            if good:
                self.found[head["start"]] = messages.to_measures(head, block)
            good = end
        file.truncate(good)
        if not good:
            self._write(messages.pack({"key": key}))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def journal_key(entries: Entries, max_pixels: int) -> str:
    """Of a pass: other bytes, limits or figures are another pass."""
    mark = hashlib.blake2b(repr((_VERSION, NUMBERS, max_pixels)).encode(), digest_size=20)
    for column in (entries.offset, entries.packed, entries.size, entries.method, entries.crc):
        mark.update(column.tobytes())
    mark.update(b"\0".join(entries.locations or ()))
    return mark.hexdigest()


def _frames(file: BinaryIO) -> Iterator[tuple[messages.Message, int]]:
    """Whole messages, and where each ends."""
    size = os.fstat(file.fileno()).st_size
    while len(frame := file.read(_FRAME.size)) == _FRAME.size:
        length, check = _FRAME.unpack(frame)
        if length > size - file.tell():
            return
        data = file.read(length)
        if zlib.crc32(data) != check:
            return
        message = messages.receive(io.BytesIO(data))
        if message is None:
            return
        yield message, file.tell()
