"""Figures of decoded pictures, a stack of one shape at a time: sums, dHash, cells, sharpness.

All of it is sums of whole numbers, in floats that hold them exactly: neither the order of the sums
nor the machine can change a result. (The sharpness of large pictures is none, but is rounded to
float32.) No product of matrices is so large that BLAS would take threads of its own for it: they
would wait for those of the pass.
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
"""Pixels up to which matrix products add up bands and columns: quicker, and still in one thread."""
_SHARP_ROWS = 64
"""Rows of a picture in which sharpness is measured, evenly spread: the cost of large ones."""
_GREY, _WEIGHTS = (77, 150, 29), (299.0, 587.0, 114.0)
"""256 and 1,000 times the weights of R, G and B in grey (ITU-R BT.601)."""


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
    small = height >= _ROWS and max(height, width) <= _STRIP and height * width <= _SMALL
    scratch = scratch if scratch and small else Scratch()
    values: npt.NDArray[Any] = stack
    if small:
        values = scratch.array("values", stack.shape)
        np.copyto(values, stack)
    cells, sums, squares = _small(values, scratch) if small else _large(stack)
    heights = [max(end - start, 1) * 1000.0 for start, end in pairwise(_edges(height))]
    grey = np.rint(cells / np.array(heights)[:, None]).astype(np.uint8).reshape(count, CELLS)
    return Figures(sums, squares, _dhash(cells), grey, _sharpness(values, scratch))


def _edges(height: int) -> list[int]:
    return [height * k // _ROWS for k in range(_ROWS + 1)]


def _small(stack: npt.NDArray[np.float32], scratch: Scratch) -> tuple[Floats, Floats, Floats]:
    """Cells `[n, 8, 9]`, in grey times 1,000 and the height of a band of rows; sums and sums of
    squares of R, G and B `[n, 3]`."""
    count, height, width, _ = stack.shape
    rows = stack.reshape(count, height, width * 3)
    bands = scratch.array("bands", (count, _ROWS, width * 3))
    np.matmul(_membership(height, _ROWS).T, rows, out=bands)
    squares = np.einsum("nij,nij->nj", rows, rows).astype(np.float64)
    regions = _regions(width)
    across = bands.astype(np.float64) @ regions
    cells = across[:, :, :_COLUMNS] / _columns(width).sum(axis=0)
    sums = np.ones(_ROWS) @ across[:, :, _COLUMNS:]
    return cells, sums, squares @ regions[:, _COLUMNS:]


def _large(stack: Pixels) -> tuple[Floats, Floats, Floats]:
    """The same for pictures of any size: in strips, which keep memory small."""
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
    sums = _by_channel(np.add.reduce(bands, axis=1))
    if height < _ROWS:  # a cell needs a row of its own: low pictures are stretched
        bands = flat[:, edges[:-1]].astype(np.float64)
    red, green, blue = (weight * bands[:, :, at::3] for at, weight in enumerate(_WEIGHTS))
    grey = red + green + blue
    starts = np.arange(_COLUMNS) * width // _COLUMNS
    if width < _COLUMNS:
        return grey[:, :, starts], sums, _by_channel(squares)
    cells = np.add.reduceat(grey, starts, axis=2) / np.diff(starts, append=width)
    return cells, sums, _by_channel(squares)


def _by_channel(columns: Floats) -> Floats:
    """`[n, 3]` from `[n, W * 3]`."""
    return np.stack([np.add.reduce(columns[:, channel::3], axis=1) for channel in range(3)], axis=1)


@lru_cache(maxsize=64)
def _membership(length: int, parts: int) -> npt.NDArray[np.float32]:
    """`[length, parts]`: 1 where a place belongs to a part; the parts are as equal as they can be.

    A product with it adds up parts, which is three times as fast as numpy's own `reduceat`.
    """
    part = np.searchsorted(
        [length * k // parts for k in range(1, parts)], np.arange(length), "right"
    )
    return np.eye(parts, dtype=np.float32)[part]


@lru_cache(maxsize=64)
def _regions(width: int) -> Floats:
    """`[W * 3, 12]`: by what each value of a row counts in the grey of 9 columns, times 1,000, and
    in R, G and B over the whole row."""
    grey = _columns(width)[:, None] * np.array(_WEIGHTS)[:, None]
    channels = np.broadcast_to(np.eye(3), (width, 3, 3))
    return np.concatenate((grey, channels), axis=2).reshape(width * 3, _COLUMNS + 3)


def _columns(width: int) -> Floats:
    """`[W, 9]`: 1 where a pixel of a row belongs to a column of cells. Of less than 9 pixels each
    column is one, some more than once."""
    if width < _COLUMNS:
        return np.eye(width)[:, np.arange(_COLUMNS) * width // _COLUMNS]
    return _membership(width, _COLUMNS).astype(np.float64)


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
    sums = np.add.reduce(values, axis=1)
    # `vecdot` is quicker, and would take threads for long rows.
    squares = np.vecdot(values, values) if size < _SMALL else np.einsum("ij,ij->i", values, values)
    variance: npt.NDArray[np.float64] = (squares - sums / size * sums) / size / 256**2
    return variance.astype(np.float32)
