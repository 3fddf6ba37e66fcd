"""Figures of decoded pictures, a stack of one shape at a time: sums, dHash, cells, sharpness.

All of it is sums of whole numbers, in floats that hold them exactly: neither the order of the sums
nor the machine can change a result.
"""

from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from imgcls.images import Pixels

Floats = npt.NDArray[np.float64]

_ROWS, _COLUMNS = 8, 9
CELLS = _ROWS * _COLUMNS
_STRIP = 256
"""Rows added up in float32: 256 x 255 squared is the most that stays exact (below 2 to the 24)."""
_SMALL = 96 * 96
"""Pixels up to which a matrix product adds up bands of rows: quicker, and still in one thread."""
_SHARP_ROWS = 64
"""Rows of a picture in which sharpness is measured, evenly spread: the cost of large ones."""
_GREY = (77, 150, 29)
"""256 times the weights of R, G and B in grey (ITU-R BT.601)."""


class Figures(NamedTuple):
    """Of `n` pictures."""

    sums: Floats
    """`[n, 3]`: of R, G and B over all pixels."""
    squares: Floats
    """`[n, 3]`: of their squares."""
    phash: npt.NDArray[np.uint64]
    """`[n]`: 64-bit dHash (N. Krawetz, "Kind of Like That", hackerfactor.com, 2013). Grey levels
    (0.299 R + 0.587 G + 0.114 B) averaged over 8 x 9 cells, a bit for every cell brighter than its
    left neighbour, row by row, the first bit the highest. Alike pictures differ in few bits."""
    cells: Pixels
    """`[n, 72]`: those grey levels, 0 to 255: they tell pictures that are alike from those that
    only hash alike."""
    blur: npt.NDArray[np.float32]
    """`[n]`: variance of the Laplacian of grey, 0 to 255, over the pixels that have four
    neighbours, in full resolution and in at most 64 rows (Pech-Pacheco et al., "Diatom
    autofocusing in brightfield microscopy", ICPR 2000). Low where nothing is sharp; 0 where a side
    is below 3."""


class Scratch:
    """Memory of intermediate results, used again for the next stack: to ask the system for it each
    time takes as long as the arithmetic. Not thread-safe."""

    def __init__(self) -> None:
        self._kept: dict[str, npt.NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], kind: type = np.float32) -> Any:
        """With any content; one that was given out under this name before is overwritten."""
        size, kept = prod(shape), self._kept.get(name)
        if kept is None or len(kept) < size:
            self._kept[name] = kept = np.empty(size, kind)
        return kept[:size].reshape(shape)


def statistics(stack: Pixels, scratch: Scratch | None = None) -> Figures:
    """Of `uint8 [n, H, W, 3]`, contiguous. `scratch` is used for small pictures."""
    count, height, width, _ = stack.shape
    small = height <= _STRIP and height * width <= _SMALL
    scratch = scratch if scratch and small else Scratch()
    values: npt.NDArray[Any] = stack
    if small:
        values = scratch.array("values", stack.shape)
        np.copyto(values, stack)
    bands, squares = _small(values, scratch) if small else _large(stack)
    cells, sums = _cells_and_sums(bands)
    if height < _ROWS:  # a cell needs a row of its own: low pictures are stretched
        bands = stack[:, _edges(height)[:-1]].astype(np.float64).reshape(bands.shape)
        cells, _ = _cells_and_sums(bands)
    heights = [max(end - start, 1) * 1000.0 for start, end in pairwise(_edges(height))]
    grey = np.rint(cells / np.array(heights)[:, None]).astype(np.uint8).reshape(count, CELLS)
    by_channel = squares @ _regions(width)[:, _COLUMNS:]
    return Figures(sums, by_channel, _dhash(cells), grey, _sharpness(values, scratch))


def _edges(height: int) -> list[int]:
    return [height * k // _ROWS for k in range(_ROWS + 1)]


def _small(stack: npt.NDArray[np.float32], scratch: Scratch) -> tuple[Floats, Floats]:
    """Sums over 8 bands of rows `[n, 8, W * 3]`, and sums of squares over all rows `[n, W * 3]`."""
    count, height, width, _ = stack.shape
    rows = stack.reshape(count, height, width * 3)
    bands = scratch.array("bands", (count, _ROWS, width * 3))
    np.matmul(_membership(height, _ROWS).T, rows, out=bands)
    squares = np.einsum("nij,nij->nj", rows, rows)
    return bands.astype(np.float64), squares.astype(np.float64)


def _large(stack: Pixels) -> tuple[Floats, Floats]:
    """The same in strips, which keep memory small."""
    count, height, width, _ = stack.shape
    flat = stack.reshape(count, height, width * 3)
    bands = np.zeros((count, _ROWS, width * 3))
    squares = np.zeros((count, width * 3))
    edges = _edges(height)
    for band in range(_ROWS):
        for start in range(edges[band], edges[band + 1], _STRIP):
            strip = flat[:, start : min(start + _STRIP, edges[band + 1])].astype(np.float32)
            bands[:, band] += np.add.reduce(strip, axis=1)
            squares += np.einsum("nij,nij->nj", strip, strip)
    return bands, squares


@lru_cache(maxsize=64)
def _membership(length: int, parts: int) -> npt.NDArray[np.float32]:
    """`[length, parts]`: 1 where a place belongs to a part; the parts are as equal as they can be.

    A product with it adds up parts, which is three times as fast as numpy's own `reduceat`.
    """
    part = np.searchsorted(
        [length * k // parts for k in range(1, parts)], np.arange(length), "right"
    )
    return np.eye(parts, dtype=np.float32)[part]


@lru_cache(maxsize=8)
def _regions(width: int) -> Floats:
    """`[W * 3, 12]`: by what each value of a row counts in the grey of 9 columns, times 1,000, and
    in R, G and B over the whole row."""
    if width < _COLUMNS:  # a column is one pixel
        columns = np.eye(width)[:, np.arange(_COLUMNS) * width // _COLUMNS]
    else:
        columns = _membership(width, _COLUMNS).astype(np.float64)
    grey = columns[:, None] * np.array([299.0, 587.0, 114.0])[:, None]
    channels = np.broadcast_to(np.eye(3), (width, 3, 3))
    return np.concatenate((grey, channels), axis=2).reshape(width * 3, _COLUMNS + 3)


def _cells_and_sums(bands: Floats) -> tuple[Floats, Floats]:
    """From sums over bands of rows `[n, 8, W * 3]`: grey `[n, 8, 9]`, times 1,000 and the height of
    a band, and R, G and B over all `[n, 3]`."""
    width = bands.shape[2] // 3
    found = bands @ _regions(width)
    pixels = 1.0 if width < _COLUMNS else _membership(width, _COLUMNS).sum(axis=0)
    return found[:, :, :_COLUMNS] / pixels, np.ones(_ROWS) @ found[:, :, _COLUMNS:]


def _dhash(cells: Floats) -> npt.NDArray[np.uint64]:
    """All cells of a band have its height, so that their sums compare as their means do."""
    bits = cells[:, :, 1:] > cells[:, :, :-1]
    packed = np.packbits(bits.reshape(len(cells), 64), axis=1)
    return packed.view(">u8").reshape(len(cells)).astype(np.uint64)


def _sharpness(stack: npt.NDArray[Any], scratch: Scratch) -> npt.NDArray[np.float32]:
    count, height, width, _ = stack.shape
    if min(height, width) < 3:
        return np.zeros(count, np.float32)
    step = 1
    if height > 3 * _SHARP_ROWS:  # three rows for each in which it is measured
        middle = np.linspace(1, height - 2, _SHARP_ROWS).astype(np.int64)
        stack = stack[:, (middle[:, None] + [-1, 0, 1]).ravel()]
        height, step = 3 * _SHARP_ROWS, 3
    # In one long row: loops over short ones would take most of the time.
    colours = stack.reshape(-1).astype(np.float32, copy=False)
    grey, laplacian = (scratch.array(name, (len(colours) // 3,)) for name in ("grey", "laplacian"))
    np.multiply(colours[0::3], _GREY[0], out=grey)
    for channel in (1, 2):
        grey += np.multiply(colours[channel::3], _GREY[channel], out=laplacian)
    inner = laplacian[width:-width]
    np.multiply(grey[width:-width], -4, out=inner)
    for shift in (-width, -1, 1, width):
        inner += grey[width + shift : len(grey) - width + shift]
    # Without what was taken from another row or picture.
    whole = laplacian.reshape(count, height, width)[:, 1:-1:step, 1:-1]
    values = scratch.array("sharp", whole.shape, np.float64)
    np.copyto(values, whole)
    values = values.reshape(count, -1)
    size = values.shape[1]
    sums, squares = np.add.reduce(values, axis=1), np.vecdot(values, values)
    variance: npt.NDArray[np.float64] = (squares - sums / size * sums) / size / 256**2
    return variance.astype(np.float32)
