"""Twins: files of different bytes that show the same picture, rescaled or encoded anew.

Candidates share most bits of their perceptual hash. They are found without comparing all with all:
hashes are cut into 6 blocks, and two of them that differ in at most 4 bits agree in 2 whole
blocks, so that sorting by each of the 15 pairs of blocks brings them side by side (G. Manku,
A. Jain, A. Das Sarma, "Detecting Near-Duplicates for Web Crawling", WWW 2007). Most pairs that
differ in a few bits more are met too. Different pictures on one background hash alike as well, so
that shape, colour and 72 grey cells decide.
"""

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imgcls.data.columns import codes, encoded
from imgcls.data.pixelwise import CELLS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]

_EDGES = (0, 11, 22, 33, 43, 53, 64)
"""Of the blocks, in bits."""
_BITS = 10
"""In which the hashes of twins may differ."""
_WINDOW = 32
"""Neighbours that each image is compared with in each order: the time stays linear where a crowd
shares its blocks."""
_COLOUR = 8.0
"""By which the mean of each channel may differ, of 255."""
_FLAT = 3.0
"""Standard deviation of the cells below which a picture has nothing to be compared by."""
_APART, _APART_SURENESS = (0.0, 3.5, 5.0), (0.99, 0.9, 0.75)
_ALIKE, _ALIKE_SURENESS = (0.97, 0.985, 1.0), (0.75, 0.9, 0.99)
"""Mean difference and correlation of the cells, and how sure a pair of such is one picture.

Of 600 copies of the photos in clothing.zip, scaled by 0.5 to 1 and saved with quality 50 to 95, the
largest difference was 3.3; of different photos the least was 4.8, but for two shots of one skirt.
Of 32 x 32 pictures, scaled by 0.75 to 1.5, 95% of the copies stay below 3.4.
"""
SURE = 0.9
"""From here on a pair counts as sure."""
_CHUNK = 1 << 12
_ONES = np.ones(CELLS, np.float32)
_COLUMNS = ["phash", "cells", "width", "height", "sum_r", "sum_g", "sum_b"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Row numbers of twins, `first < second`, and how sure each is."""

    first: Ints
    second: Ints
    confidence: Floats

    def of(self, sure: float) -> "Pairs":
        """Those with at least this confidence."""
        keep = self.confidence >= sure
        return Pairs(self.first[keep], self.second[keep], self.confidence[keep])

    def at(self, rows: Ints) -> "Pairs":
        """The same pairs, where these are rows `rows` of another index."""
        return Pairs(rows[self.first], rows[self.second], self.confidence)


def find_twins(index: pa.Table) -> Pairs:
    """Pairs that connect all twins among the rows of an index.

    Of files with the very same bytes only the first takes part.
    """
    rows = _comparable(index)
    looks = _Looks.of(index.select(_COLUMNS).take(rows))
    # Neighbours of one hash lie by brightness, so that a crowd's twins are near each other.
    order = np.lexsort((looks.total, looks.hash))
    rows, looks = rows[order], looks.take(order)
    found = _Forest(len(rows))
    for pair in combinations(pairwise(_EDGES), 2):
        kept = sum(((1 << (end - start)) - 1) << start for start, end in pair)
        _side_by_side(looks, looks.hash & np.uint64(kept), found)
    one, other = (rows[np.concatenate(part)] for part in (found.one, found.other))
    return Pairs(np.minimum(one, other), np.maximum(one, other), np.concatenate(found.confidence))


def components(count: int, pairs: Pairs) -> Ints:
    """`int64 [count]`: the smallest row that each row is connected with, itself where there is
    none."""
    return _joined(np.arange(count), pairs.first, pairs.second)


def _joined(root: Ints, one: Ints, other: Ints) -> Ints:
    """Roots after more connections: each the smallest of its component."""
    while True:
        left, right = root[one], root[other]
        if (left == right).all():
            return root
        lower = np.minimum(left, right)
        root = root.copy()
        np.minimum.at(root, left, lower)
        np.minimum.at(root, right, lower)
        while (root[root] != root).any():
            root = root[root]


def with_twins(index: pa.Table, pairs: Pairs) -> pa.Table:
    """The index with its column `twins`: for pictures that look the same, one content hash.

    `pairs` are those of its rows.
    """
    paired = np.zeros(len(index), bool)
    paired[pairs.first] = paired[pairs.second] = True
    rows = np.flatnonzero(paired)
    code, contents = encoded(index["content_hash"])
    code = np.where(code < 0, len(contents), code)
    sorted_codes = pc.sort_indices(contents).to_numpy().astype(np.int64)
    rank = np.argsort(sorted_codes)
    # The least hash of each component, not that of its first path: splits depend on no name.
    root = components(len(index), pairs)[rows]
    least = np.full(len(index), len(rank))
    np.minimum.at(least, root, rank[code[rows]])
    twin = np.full(len(rank) + 1, -1)
    twin[code[rows]] = sorted_codes[least[root]]
    chosen = twin[code]
    column = contents.take(pa.array(chosen, mask=chosen < 0))
    return index.set_column(index.schema.get_field_index("twins"), index.field("twins"), column)


def _comparable(index: pa.Table) -> Ints:
    """Rows with cells, the first of each content."""
    there = pc.and_(index["error"].is_null(), index["cells"].is_valid())
    rows = np.flatnonzero(there.to_numpy())
    hashes = index["content_hash"]
    code = codes(hashes if len(rows) == len(index) else hashes.take(rows))
    # Codes are given in the order in which contents appear.
    return rows[np.diff(np.maximum.accumulate(code), prepend=-1) > 0]


@dataclass(frozen=True, slots=True)
class _Looks:
    hash: Hashes
    cells: npt.NDArray[np.uint8]
    """`[n, 72]`"""
    total: Floats
    """`[n]`: sum of the cells."""
    spread: Floats
    """`[n]`: standard deviation of the cells, times 72."""
    colour: npt.NDArray[np.float32]
    """`[3, n]`, means of 0 to 255."""
    sides: Floats
    """`[2, n]`, width and height."""

    @classmethod
    def of(cls, index: pa.Table) -> "_Looks":
        cells = index["cells"].combine_chunks()
        flat = np.frombuffer(cells.buffers()[1] or b"", np.uint8)
        flat = flat[cells.offset * CELLS :][: len(cells) * CELLS].reshape(-1, CELLS)
        moments = [_moments(flat[start : start + _CHUNK]) for start in range(0, len(flat), _CHUNK)]
        total, squares = np.concatenate([np.empty((2, 0)), *moments], axis=1)
        sides = np.stack([index[name].to_numpy() for name in ("width", "height")])
        sums = np.stack([index[f"sum_{channel}"].to_numpy() for channel in "rgb"])
        colour = sums / np.prod(sides.astype(np.float64), axis=0)
        return cls(
            index["phash"].to_numpy(),
            flat,
            total,
            np.sqrt(CELLS * squares - total**2),
            colour.astype(np.float32),
            sides.astype(np.float64),
        )

    def take(self, rows: Ints) -> "_Looks":
        return _Looks(
            self.hash[rows],
            self.cells[rows],
            self.total[rows],
            self.spread[rows],
            self.colour[:, rows],
            self.sides[:, rows],
        )

    def sureness(self, one: Ints, other: Ints) -> Floats:
        """`[n]`: how sure each pair is one picture, 0 where it is none."""
        found = np.zeros(len(one))
        for start in range(0, len(one), _CHUNK):
            part = slice(start, start + _CHUNK)
            left = self.cells[one[part]].astype(np.float32)
            right = self.cells[other[part]].astype(np.float32)
            products = np.vecdot(left, right).astype(np.float64)
            apart = np.vecdot(np.abs(np.subtract(left, right, out=left), out=left), _ONES) / CELLS
            spread = self.spread[one[part]] * self.spread[other[part]]
            covariance = CELLS * products - self.total[one[part]] * self.total[other[part]]
            alike = covariance / np.maximum(spread, 1)
            sure = np.minimum(
                np.interp(apart, _APART, _APART_SURENESS, right=0),
                np.interp(alike, _ALIKE, _ALIKE_SURENESS, left=0),
            )
            found[part] = np.where(spread > (CELLS * _FLAT) ** 2, sure, 0)
        return found

    def candidates(self, one: Ints, other: Ints) -> tuple[Ints, Ints]:
        """The pairs that are worth to be compared cell by cell."""
        near = np.bitwise_count(self.hash[one] ^ self.hash[other]) <= _BITS
        one, other = one[near], other[near]
        for channel in self.colour:
            near = np.abs(channel[one] - channel[other]) <= _COLOUR
            one, other = one[near], other[near]
        (width, height), (its_width, its_height) = self.sides[:, one], self.sides[:, other]
        shape = np.abs(width * its_height / (height * its_width) - 1)
        # Sides are whole pixels.
        least = np.minimum(np.minimum(width, height), np.minimum(its_width, its_height))
        near = shape <= 1.5 / least + 0.005
        return one[near], other[near]


def _moments(cells: npt.NDArray[np.uint8]) -> Floats:
    """`[2, n]`: sums of the cells `[n, 72]`, and of their squares."""
    values = cells.astype(np.float32)
    # Whole numbers below 2 to the 24: exact, in whatever order they are added up.
    return np.stack((np.vecdot(values, _ONES), np.vecdot(values, values))).astype(np.float64)


class _Forest:
    """Twins found so far: only pairs that connect what was not connected, or not surely."""

    def __init__(self, count: int) -> None:
        none = np.empty(0, np.int64)
        self.one, self.other, self.confidence = [none], [none], [np.empty(0)]
        self._sure: Ints = np.arange(count)
        self._any: Ints = np.arange(count)

    def open(self, one: Ints, other: Ints) -> npt.NDArray[np.bool_]:
        """Which pairs could still add something."""
        still: npt.NDArray[np.bool_] = self._sure[one] != self._sure[other]
        return still

    def several(self, rows: Ints, starts: Ints) -> npt.NDArray[np.bool_]:
        """Of groups that lie one behind the other: which hold more than one picture, as far as is
        sure. Each of them begins at one of `starts`."""
        sure = self._sure[rows]
        found: npt.NDArray[np.bool_]
        found = np.minimum.reduceat(sure, starts) != np.maximum.reduceat(sure, starts)
        return found

    def add(self, one: Ints, other: Ints, confidence: Floats) -> None:
        sure = confidence >= SURE
        new = sure | ((confidence > 0) & (self._any[one] != self._any[other]))
        if not new.any():
            return
        self._sure = _joined(self._sure, one[sure], other[sure])
        self._any = _joined(self._any, one[new], other[new])
        self.one.append(one[new])
        self.other.append(other[new])
        self.confidence.append(confidence[new])


def _side_by_side(looks: _Looks, key: Hashes, found: _Forest) -> None:
    """Add the twins among the images with one key."""
    count = len(key)
    if count < 2:
        return
    order = np.argsort(key, kind="stable")
    key = key[order]
    last = np.flatnonzero(np.append(key[1:] != key[:-1], True))
    sizes = np.diff(last, prepend=-1)
    behind = np.repeat(last, sizes) - np.arange(count)
    # Most that share a key are one picture, and known to be.
    behind[np.repeat(~found.several(order, last - sizes + 1), sizes)] = 0
    at = np.flatnonzero(behind)
    for shift in range(1, _WINDOW + 1):
        at = at[behind[at] >= shift]
        if not len(at):
            break
        one, other = order[at], order[at + shift]
        still = found.open(one, other)
        one, other = looks.candidates(one[still], other[still])
        found.add(one, other, looks.sureness(one, other))
