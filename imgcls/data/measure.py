"""What one pass over a chunk of images finds out: hashes, size, channel sums, sharpness.

Everything is exact integer arithmetic (held in floats that can hold it), so the same pixels give
the same numbers on every machine. Images of one shape are measured together: on 32 x 32 pictures
the calls into numpy would otherwise cost as much as the decoding.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from imgcls.data.entries import Entries, Ints
from imgcls.data.pixelwise import CELLS, Scratch, statistics
from imgcls.data.reader import Reader
from imgcls.errors import BadImage
from imgcls.images import FORMATS, Pixels, decode, decode_into, probe
from imgcls.jpeg import PlainHeads

HASH_BYTES = 20
NUMBERS = (
    *("offset", "bytes", "width", "height", "phash"),
    *("sum_r", "sum_g", "sum_b", "sumsq_r", "sumsq_g", "sumsq_b"),
)
_OFFSET, _BYTES, _WIDTH = range(3)
_PENDING = 256 * 2**10
"""Bytes of decoded pixels held back until images of the same shape join them; fits the cache."""
_ALONE = _PENDING // 4
"""Above it, the calls cost nothing beside the pixels, and putting pictures together would."""
_SHAPES = 16
"""Stacks that are kept for the pictures to come."""
_KNOWN = 1 << 16
"""Files whose figures are kept for copies of them: 20 MB."""
_JPEG = FORMATS.index("JPEG") + 1


@dataclass(frozen=True, slots=True)
class Measures:
    """Columns of a chunk, a row an entry."""

    numbers: Ints
    """`int64 [n, 11]`, columns as in `NUMBERS`: where the data begins in the source, bytes of the
    file, sides in pixels, perceptual hash (the bits of a uint64), and the sums of R, G, B and of
    their squares over all pixels, values 0 to 255. Measured columns are 0 where there is an
    error."""
    blur: npt.NDArray[np.float32]
    """`[n]`: variance of the Laplacian of grey, as in `pixelwise.py`; low without sharp edges."""
    cells: Pixels
    """`uint8 [n, 72]`: the picture in 8 rows of 9 grey cells; zeros where there is an error."""
    content_hash: Pixels
    """`uint8 [n, 20]`: BLAKE2b-160 of the encoded bytes; zeros where they could not be read."""
    format: Pixels
    """`uint8 [n]`: 1 and on for `FORMATS`; 0 where there is an error."""
    error: dict[int, str]
    """`code: message` of the `BadImage`, by row; the other rows are readable images."""

    def __len__(self) -> int:
        return len(self.numbers)

    def put(self, start: int, part: "Measures") -> None:
        """Overwrite rows from `start` on."""
        rows = slice(start, start + len(part))
        self.numbers[rows], self.blur[rows], self.cells[rows] = part.numbers, part.blur, part.cells
        self.content_hash[rows], self.format[rows] = part.content_hash, part.format
        self.error.update({start + row: text for row, text in part.error.items()})

    def column(self, name: str) -> Ints:
        """One of `NUMBERS`."""
        return np.ascontiguousarray(self.numbers[:, NUMBERS.index(name)])


class Bench:
    """What a thread keeps from chunk to chunk: memory to work in, and figures of files measured
    before. Not thread-safe."""

    def __init__(self) -> None:
        self.known = _Known()
        self.stacks: dict[tuple[int, ...], _Stack] = {}
        """By shape; they hold no picture between chunks."""
        self.scratch = Scratch()
        self.heads = PlainHeads()


class _Known:
    """Figures of files measured before: one with the same bytes is not decoded again.

    Begins anew when it is full.
    """

    def __init__(self) -> None:
        self.places: dict[bytes, int] = {}
        """Where the figures lie, by content hash."""
        self._figures = blank(_KNOWN)
        self._used = 0

    def add(self, found: Measures, rows: list[int], hashes: list[bytes]) -> None:
        """Keep rows of a chunk, at most `_KNOWN`; `hashes` are those of the whole chunk."""
        if self._used + len(rows) > _KNOWN:
            self.places.clear()
            self._used = 0
        places = range(self._used, self._used + len(rows))
        self._used = places.stop
        _copy(found, rows, self._figures, slice(places.start, places.stop))
        self.places.update(zip((hashes[row] for row in rows), places, strict=True))

    def fill(self, found: Measures, copies: dict[int, int]) -> None:
        """Let rows of a chunk have the figures that lie at these places."""
        _copy(self._figures, list(copies.values()), found, list(copies))


def measure(
    reader: Reader, entries: Entries, max_pixels: int, bench: Bench | None = None
) -> Measures:
    """Read and fully decode every entry. Whatever is wrong with one becomes its `error`.

    `bench` is what chunks measured by the same thread leave for the next ones.
    """
    count = len(entries)
    found = blank(count)
    bench = bench or Bench()
    known, stacks = bench.known, bench.stacks
    measured: list[int] = []
    copies: dict[int, int] = {}
    # Lists where it goes image by image: setting a single element of an array takes longer.
    offsets, sizes, formats = [0] * count, entries.size.tolist(), [_JPEG] * count
    hashes = [bytes(HASH_BYTES)] * count
    latest = next(reversed(stacks.values()), None)
    waiting = 0
    for row, (data, offset) in enumerate(reader.scan(entries)):
        offsets[row] = offset
        try:
            if isinstance(data, BadImage):
                raise data
            sizes[row] = len(data)
            hashes[row] = mark = hashlib.blake2b(data, digest_size=HASH_BYTES).digest()
            if mark in known.places:
                copies[row] = known.places[mark]
                continue
            if not latest or not decode_into(data, latest.slots[len(latest.rows)], bench.heads):
                pixels = decode(data, max_pixels=max_pixels)
                if data[:3] != b"\xff\xd8\xff":
                    formats[row] = _code(probe(data, max_pixels=max_pixels).format)
                if pixels.size > _ALONE:
                    _fill(found, [row], pixels[None], bench.scratch)
                    measured.append(row)
                    continue
                latest = stacks.get(pixels.shape)
                if latest is None:
                    latest = stacks[pixels.shape] = _Stack(pixels.shape)
                latest.slots[len(latest.rows)][:] = pixels
        except BadImage as err:
            formats[row] = 0
            found.error[row] = f"{err.code}: {err.message}"
            continue
        latest.rows.append(row)
        measured.append(row)
        waiting += latest.size
        if waiting > _PENDING:
            _flush(found, bench)
            latest, waiting = latest if stacks else None, 0
    _flush(found, bench)
    found.numbers[:, _OFFSET], found.numbers[:, _BYTES] = offsets, sizes
    found.content_hash[:] = np.frombuffer(b"".join(hashes), np.uint8).reshape(count, HASH_BYTES)
    found.format[:] = formats
    known.fill(found, copies)
    known.add(found, measured, hashes)
    return found


def blank(count: int) -> Measures:
    """Rows to be filled, zeros."""
    return Measures(
        np.zeros((count, len(NUMBERS)), np.int64),
        np.zeros(count, np.float32),
        np.zeros((count, CELLS), np.uint8),
        np.zeros((count, HASH_BYTES), np.uint8),
        np.zeros(count, np.uint8),
        {},
    )


def _copy(source: Measures, rows: list[int], target: Measures, to: list[int] | slice) -> None:
    """What depends on the bytes of a file alone."""
    taken = np.array(rows, np.int64)
    put = to if isinstance(to, slice) else np.array(to, np.int64)
    target.numbers[put, _WIDTH:] = source.numbers[taken, _WIDTH:]
    target.blur[put], target.cells[put] = source.blur[taken], source.cells[taken]
    target.format[put] = source.format[taken]


class _Stack:
    """Pictures of one shape that wait to be measured together."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.size = prod(shape)
        self.rows: list[int] = []
        self.pixels: Pixels = np.empty((_PENDING // self.size + 1, *shape), np.uint8)
        self.slots: list[Pixels] = list(self.pixels)
        """Where each goes."""


def _flush(found: Measures, bench: Bench) -> None:
    for stack in bench.stacks.values():
        if stack.rows:
            _fill(found, stack.rows, stack.pixels[: len(stack.rows)], bench.scratch)
            stack.rows.clear()
    if len(bench.stacks) > _SHAPES:
        bench.stacks.clear()


def _fill(found: Measures, rows: list[int], pixels: Pixels, scratch: Scratch) -> None:
    _, height, width, _ = pixels.shape
    figures = statistics(pixels, scratch)
    table = np.empty((len(rows), len(NUMBERS) - _WIDTH), np.int64)
    table[:, 0], table[:, 1], table[:, 2] = width, height, figures.phash.view(np.int64)
    table[:, 3:6], table[:, 6:9] = figures.sums, figures.squares
    at = np.array(rows, np.int64)
    found.numbers[at, _WIDTH:] = table
    found.blur[at], found.cells[at] = figures.blur, figures.cells


def _code(name: str) -> int:
    return FORMATS.index(name) + 1


def join(parts: Sequence[Measures]) -> Measures:
    """Chunks one behind the other."""
    whole, start = blank(sum(map(len, parts))), 0
    for part in parts:
        whole.put(start, part)
        start += len(part)
    return whole
