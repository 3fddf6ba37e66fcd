"""A close look: whether two pictures that look the same in grey cells are one picture.

Cells tell photos apart, but not two shots of one scene: a part with and without a scratch, pages
of text, frames of a film. So both are decoded. In pictures of one size every place must be the same
but for what encoding does; in those of different sizes, each value near its place in the other.

Of copies of the photos in clothing.zip with a JPEG quality of 30 to 95, and of pets32.zip, the
largest difference at one size was 16.6 levels of 255; a scratch of 1 x 20 px on a fixed scene makes
37 and more, a camera that moves by 2 of 500 px 65. Of copies scaled by 0.5 to 1.5 it was 22.4, and
below 7 for 95%; pages of other text have 20 and more.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgcls.errors import BadImage
from imgcls.images import Pixels, decode

if TYPE_CHECKING:
    from imgcls.data import Dataset

Grey = npt.NDArray[np.float32]

_SIDE = 512
"""Pixels to which larger pictures are reduced."""
_THUMB = 64
_LISTS = 10
_SAME_SIZE, _SCALED = 24.0, 16.0
"""Levels of 255 by which the mean of 3 x 3 pixels, or of 4 x 4 of a thumbnail, may differ."""
_FLAT, _FLAT_THUMB = 3, 4


def pictures(dataset: "Dataset", rows: Sequence[int]) -> Iterator[list[int]]:
    """Rows that are one picture: each list has all that the first of it was found to be.

    At most 10 lists; what cannot be read any more is in none.
    """
    looks = {row: grey for row in rows if (grey := _look(dataset, row)) is not None}
    for _ in range(_LISTS):
        if not looks:
            break
        first = looks[next(iter(looks))]
        same = [row for row, grey in looks.items() if are_one(first, grey)]
        for row in same:
            del looks[row]
        yield same


def are_one(one: Pixels, other: Pixels) -> bool:
    """Whether two pictures, grey `uint8 [H, W]`, are one but for their encoding and scale."""
    left, right = one.astype(np.float32), other.astype(np.float32)
    if left.shape == right.shape:
        return bool(_means(np.abs(left - right), _FLAT).max() <= _SAME_SIZE)
    outside = _outside(_thumbnail(left), _thumbnail(right))
    return bool(_means(outside, _FLAT_THUMB).max() <= _SCALED)


def _look(dataset: "Dataset", row: int) -> Pixels | None:
    try:
        pixels = decode(dataset.read(row), min_size=(_SIDE, _SIDE))
    except BadImage:
        return None
    image = Image.fromarray(pixels).convert("L")
    return np.asarray(image.reduce(max(1, min(image.size) // _SIDE)))


def _thumbnail(grey: Grey) -> Grey:
    image = Image.fromarray(grey)
    resample = Image.Resampling.BOX if min(image.size) >= _THUMB else Image.Resampling.BILINEAR
    return np.asarray(image.resize((_THUMB, _THUMB), resample))


def _outside(one: Grey, other: Grey) -> Grey:
    """By how much each value lies outside of those around its place in the other picture: edges
    move by a part of a pixel when a picture is scaled."""
    (low, high), (least, most) = _around(one), _around(other)
    apart: Grey = np.maximum.reduce([one - most, least - one, other - high, low - other])
    return apart.clip(min=0)


def _around(grey: Grey) -> tuple[Grey, Grey]:
    """Least and largest value of each 3 x 3."""
    padded = np.pad(grey, 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    return windows.min(axis=(2, 3)), windows.max(axis=(2, 3))


def _means(values: Grey, side: int) -> npt.NDArray[np.float64]:
    """Means of all squares of `side` pixels; of smaller pictures that of all."""
    side = min(side, *values.shape)
    sums = np.pad(values.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    across = sums[side:] - sums[:-side]
    means: npt.NDArray[np.float64] = (across[:, side:] - across[:, :-side]) / side**2
    return means
