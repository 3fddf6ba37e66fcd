"""Statistics of a group of images: counts, sizes, colours, formats.

Read from the columns of a dataset's index; no image is opened. Colour statistics are exact: the
index holds integer sums over fully decoded images.
"""

from collections import Counter
from math import sqrt

import numpy as np
import numpy.typing as npt

from imgcls.eda.columns import Columns
from imgcls.eda.histograms import Histograms
from imgcls.eda.types import GroupStats, Range, Rgb, Spread
from imgcls.images import FORMATS

EMPTY = GroupStats(
    images=0,
    unreadable=0,
    duplicates=0,
    pixels=None,
    width=None,
    height=None,
    mean_rgb=None,
    std_rgb=None,
    formats={},
    bytes_total=0,
    bytes_mean=None,
)
"""A group without readable images."""


def group_stats(
    columns: Columns, rows: npt.NDArray[np.int64], histograms: Histograms | None = None
) -> GroupStats:
    """Statistics of the given rows of the index."""
    good = rows[columns.readable[rows]]
    count = len(good)
    if not count:
        return EMPTY.model_copy(update={"unreadable": len(rows)})
    total = int(columns.pixels[good].sum())
    sums = [int(channel[good].sum()) for channel in columns.sums]
    squares = [int(channel[good].sum()) for channel in columns.squares]
    formats = Counter(dict(enumerate(np.bincount(columns.format[good]).tolist())))
    blur, file_size = columns.blur[good], columns.file_size[good]
    return GroupStats(
        images=count,
        unreadable=len(rows) - count,
        duplicates=count - int(np.count_nonzero(np.bincount(columns.content[good]))),
        pixels=Range.of(columns.pixels[good]),
        width=Range.of(columns.width[good]),
        height=Range.of(columns.height[good]),
        aspect=Spread.of(columns.aspect[good]),
        brightness=Spread.of(columns.brightness[good]),
        blur=None if np.isnan(blur).any() else Spread.of(blur),
        mean_rgb=_mean(total, sums),
        std_rgb=_std(total, sums, squares),
        formats={FORMATS[at]: number for at, number in formats.most_common() if number},
        bytes_total=int(file_size.sum()),
        bytes_mean=float(file_size.mean()),
        file_size=Range.of(file_size),
        histograms=histograms.counts(good) if histograms is not None else {},
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
