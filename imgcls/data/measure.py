"""What one pass over a chunk of images finds out: hashes, size, channel sums.

Everything is exact integer arithmetic (held in floats that can hold it), so the same pixels give
the same numbers on every machine. Images of one shape are measured together: on 32 x 32 pictures
the calls into numpy would otherwise cost as much as the decoding.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgcls.data.entries import Entries, Ints
from imgcls.data.reader import Reader
from imgcls.errors import BadImage
from imgcls.images import Pixels, decode, probe

Floats = npt.NDArray[np.float64]

HASH_BYTES = 20
NUMBERS = (
    *("offset", "bytes", "width", "height", "phash"),
    *("sum_r", "sum_g", "sum_b", "sumsq_r", "sumsq_g", "sumsq_b"),
)
_OFFSET, _BYTES, _WIDTH, _HEIGHT, _PHASH = range(5)
_SUMS, _SQUARES = slice(5, 8), slice(8, 11)
_ROWS, _COLUMNS = 8, 9
_STRIP = 256
"""Rows added up in float32: 256 x 255 squared is the most that stays exact (below 2 to the 24)."""
_PENDING = 256 * 2**10
"""Bytes of decoded pixels held back until images of the same shape join them; fits the cache."""


@dataclass(frozen=True, slots=True)
class Measures:
    """Columns of a chunk, a row an entry."""

    numbers: Ints
    """`int64 [n, 11]`, columns as in `NUMBERS`: where the data begins in the source, bytes of the
    file, sides in pixels, perceptual hash (the bits of a uint64), and the sums of R, G, B and of
    their squares over all pixels, values 0 to 255. Measured columns are 0 where `error` is set."""
    content_hash: list[str | None]
    """BLAKE2b-160 of the encoded bytes, hex; None where the bytes could not be read."""
    format: list[str | None]
    error: list[str | None]
    """`code: message` of the `BadImage`, None for a readable image."""

    def column(self, name: str) -> Ints:
        """One of `NUMBERS`."""
        return np.ascontiguousarray(self.numbers[:, NUMBERS.index(name)])


def measure(reader: Reader, entries: Entries, max_pixels: int) -> Measures:
    """Read and fully decode every entry. Whatever is wrong with one becomes its `error`."""
    count = len(entries)
    found = Measures(
        np.zeros((count, len(NUMBERS)), np.int64), [None] * count, [None] * count, [None] * count
    )
    found.numbers[:, _BYTES] = entries.size
    alike: dict[tuple[int, ...], tuple[list[int], list[Pixels]]] = {}
    waiting = 0
    for row, (data, offset) in enumerate(reader.scan(entries)):
        found.numbers[row, _OFFSET] = offset
        try:
            if isinstance(data, BadImage):
                raise data
            found.numbers[row, _BYTES] = len(data)
            found.content_hash[row] = hashlib.blake2b(data, digest_size=HASH_BYTES).hexdigest()
            pixels = decode(data, max_pixels=max_pixels)
            jpeg = data[:3] == b"\xff\xd8\xff"
            found.format[row] = "JPEG" if jpeg else probe(data, max_pixels=max_pixels).format
        except BadImage as err:
            found.error[row] = f"{err.code}: {err.message}"
            continue
        rows, stack = alike.setdefault(pixels.shape, ([], []))
        rows.append(row)
        stack.append(pixels)
        waiting += pixels.size
        if waiting > _PENDING:
            _flush(found, alike)
            waiting = 0
    _flush(found, alike)
    return found


def _flush(found: Measures, alike: dict[tuple[int, ...], tuple[list[int], list[Pixels]]]) -> None:
    for (height, width, _), (rows, pixels) in alike.items():
        stack = pixels[0][None] if len(pixels) == 1 else np.stack(pixels)
        sums, squares, hashes = statistics(stack)
        table = np.empty((len(rows), len(NUMBERS) - _WIDTH), np.int64)
        table[:, 0], table[:, 1], table[:, 2] = width, height, hashes.view(np.int64)
        table[:, 3:6], table[:, 6:9] = sums, squares
        found.numbers[rows, _WIDTH:] = table
    alike.clear()


def statistics(stack: Pixels) -> tuple[Floats, Floats, npt.NDArray[np.uint64]]:
    """Channel sums `[n, 3]`, sums of squares `[n, 3]` and dHash `[n]` of `uint8 [n, H, W, 3]`.

    The perceptual hash is the 64-bit dHash (N. Krawetz, "Kind of Like That", hackerfactor.com,
    2013): grey levels averaged over 8 x 9 cells, a bit for every cell brighter than its left
    neighbour, row by row, the first bit the highest. Grey is 0.299 R + 0.587 G + 0.114 B
    (ITU-R BT.601). Alike pictures differ in few bits.
    """
    count, height, width, _ = stack.shape
    flat = stack.reshape(count, height, width * 3)
    bands = np.zeros((count, _ROWS, width * 3))
    squares = np.zeros((count, width * 3))
    edges = [height * k // _ROWS for k in range(_ROWS + 1)]
    for band in range(_ROWS):
        for start in range(edges[band], edges[band + 1], _STRIP):
            strip = flat[:, start : min(start + _STRIP, edges[band + 1])].astype(np.float32)
            bands[:, band] += np.add.reduce(strip, axis=1)
            squares += np.einsum("nij,nij->nj", strip, strip)
    sums = _by_channel(np.add.reduce(bands, axis=1))
    if height < _ROWS:  # a cell needs a row of its own: low pictures are stretched
        bands = flat[:, np.arange(_ROWS) * height // _ROWS].astype(np.float64)
    return sums, _by_channel(squares), _dhash(bands.reshape(count, _ROWS, width, 3))


def _by_channel(columns: Floats) -> Floats:
    count, width = columns.shape
    sums: Floats = np.add.reduce(columns.reshape(count, width // 3, 3), axis=1)
    return sums


def _dhash(bands: Floats) -> npt.NDArray[np.uint64]:
    """From sums over bands of rows, `[n, 8, W, 3]`; all cells of a band have its height."""
    count, _, width, _ = bands.shape
    grey = bands[..., 0] * 299 + bands[..., 1] * 587 + bands[..., 2] * 114
    if width < _COLUMNS:
        grey = grey[:, :, np.arange(_COLUMNS) * width // _COLUMNS]
        width = _COLUMNS
    starts = np.arange(_COLUMNS) * width // _COLUMNS
    cells = np.add.reduceat(grey, starts, axis=2) / np.diff(starts, append=width)
    bits = cells[:, :, 1:] > cells[:, :, :-1]
    packed = np.packbits(bits.reshape(count, 64), axis=1)
    return packed.view(">u8").reshape(count).astype(np.uint64)


def join(parts: Sequence[Measures]) -> Measures:
    """Chunks one behind the other."""
    return Measures(
        np.concatenate([part.numbers for part in parts]),
        [value for part in parts for value in part.content_hash],
        [value for part in parts for value in part.format],
        [value for part in parts for value in part.error],
    )
