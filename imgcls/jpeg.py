"""What a JPEG says of itself before it is decoded: segments, scans, what its head holds.

Markers after ITU-T T.81, annex B. Nothing here decodes; `images.py` does.
"""

import re
from collections.abc import Iterator

from imgcls.errors import BrokenImage

EXIF = b"Exif\0\0"
"""How the segment of that name begins."""
_FOUR_COMPONENTS = b"\x00\x14\x08"
"""In the header of every frame of four components and 8 bits: its length and its precision."""
_MAX_SCANS = 64
"""Scans a JPEG may have: progressive ones have about ten. Each is a pass over the whole picture
that a few bytes can ask for, so that a small file could keep a decoder busy for hours."""
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)
"""Those that stand before a segment with a length, or end the picture."""
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_SEGMENTS = frozenset({*range(0xC0, 0xD0), *range(_START_OF_SCAN, 0xFF)})
"""Markers of those that have a length."""
_SEQUENTIAL = (0xC0, 0xC1)
"""Markers of frames that are not progressive."""
_HEADS, _HEADS_SEEN = 8, 256
"""Heads that are compared with, and those that are looked at in all: where each JPEG has one of its
own, nothing is won by more."""


def is_jpeg(data: bytes) -> bool:
    """Whether a file begins as one."""
    return data[:3] == b"\xff\xd8\xff"


def check_scans(data: bytes) -> None:
    """Raises `BrokenImage` for a JPEG with so many scans that it would keep a decoder busy."""
    if not _has_one_scan(data) and _scans(data) > _MAX_SCANS:
        raise BrokenImage(f"The JPEG image has more than {_MAX_SCANS} scans; save it again.")


class PlainHeads:
    """Heads of JPEGs, all up to the first scan's mark, that hold neither EXIF nor four components.

    Small pictures of one source mostly have the very same one, and to compare is quicker than to
    search. Not thread-safe.
    """

    def __init__(self) -> None:
        self._known: tuple[bytes, ...] = ()
        self._seen = 0

    def holds(self, data: bytes) -> bool:
        """Whether a JPEG has such a head."""
        if data.startswith(self._known):
            return True
        if _FOUR_COMPONENTS in data or EXIF in data:
            return False
        if self._seen < _HEADS_SEEN and (scan := _first_scan(data)):
            self._seen += 1
            # With the mark: what only begins alike may go on otherwise.
            self._known = (data[: scan + 2], *self._known[: _HEADS - 1])
        return True


def _has_one_scan(data: bytes) -> bool:
    """Whether the first scan holds all components, as in most JPEGs; costs 2 us."""
    components = 0
    for kind, at in _segments(data):
        if kind in _SEQUENTIAL:
            components = data[at + 9]
        elif kind == _START_OF_SCAN:
            return data[at + 4] == components
    return False


def _first_scan(data: bytes) -> int:
    """Where it begins; 0 where that is not clear."""
    return next((at for kind, at in _segments(data) if kind == _START_OF_SCAN), 0)


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Kind and place of each segment, up to the first scan or what is no segment with a length."""
    at, kind = 2, 0
    while at + 10 < len(data) and data[at] == 0xFF and kind != _START_OF_SCAN:
        kind = data[at + 1]
        if kind not in _SEGMENTS:
            return
        yield kind, at
        at += 2 + int.from_bytes(data[at + 2 : at + 4])


def _scans(data: bytes) -> int:
    """Scans before the end of the picture: coded data holds no such markers."""
    count, at = 0, 2
    while (found := _MARKER.search(data, at)) and found.group()[1] != _END_OF_IMAGE:
        count += found.group()[1] == _START_OF_SCAN
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    return count
