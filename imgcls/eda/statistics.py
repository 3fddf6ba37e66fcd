"""Statistics of a group of images: counts, sizes, colours, formats.

Read from the columns of a dataset's index; no image is opened. Colour statistics are exact: the
index holds integer sums over fully decoded images.
"""

from collections import Counter
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from imgcls.eda.types import GroupStats, Range, Rgb

if TYPE_CHECKING:
    import pyarrow as pa


class Columns:
    """The index as arrays, for fast statistics of many groups."""

    def __init__(self, index: "pa.Table") -> None:
        def numbers(name: str) -> npt.NDArray[np.int64]:
            filled = index[name].fill_null(0).to_numpy()
            return np.asarray(filled).astype(np.int64)

        self.readable: npt.NDArray[np.bool_] = index["error"].is_null().to_numpy()
        self.width, self.height = numbers("width"), numbers("height")
        self.bytes = numbers("bytes")
        self.sums = np.stack([numbers(f"sum_{c}") for c in "rgb"], axis=1)
        self.squares = np.stack([numbers(f"sumsq_{c}") for c in "rgb"], axis=1)
        self.format: list[str | None] = index["format"].to_pylist()
        # Contents as numbers: images with equal bytes have equal ones.
        self.content = codes(index["content_hash"])


def codes(column: "pa.ChunkedArray") -> npt.NDArray[np.int64]:
    """Equal numbers for equal values; -1 for null."""
    encoded = column.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.fill_null(-1).to_numpy()).astype(np.int64)


def group_stats(columns: Columns, rows: npt.NDArray[np.int64]) -> GroupStats:
    """Statistics of the given rows of the index."""
    good = rows[columns.readable[rows]]
    count = len(good)
    width, height = columns.width[good], columns.height[good]
    pixels = width * height
    total = int(pixels.sum())
    sums = [int(value) for value in columns.sums[good].sum(axis=0)]
    squares = [int(value) for value in columns.squares[good].sum(axis=0)]
    formats = Counter(columns.format[row] or "" for row in good.tolist())
    size = int(columns.bytes[good].sum())
    return GroupStats(
        images=count,
        unreadable=len(rows) - count,
        duplicates=count - len(np.unique(columns.content[good])),
        pixels=Range.of(pixels) if count else None,
        width=Range.of(width) if count else None,
        height=Range.of(height) if count else None,
        mean_rgb=_mean(total, sums) if count else None,
        std_rgb=_std(total, sums, squares) if count else None,
        formats=dict(formats.most_common()),
        bytes_total=size,
        bytes_mean=size / count if count else None,
    )


def _mean(pixels: int, sums: list[int]) -> Rgb:
    red, green, blue = (value / pixels / 255 for value in sums)
    return red, green, blue


def _std(pixels: int, sums: list[int], squares: list[int]) -> Rgb:
    # Integers until the root: no cancellation in the difference.
    red, green, blue = (
        sqrt(pixels * square - value * value) / pixels / 255
        for value, square in zip(sums, squares, strict=True)
    )
    return red, green, blue
