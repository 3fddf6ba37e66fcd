"""Splits: which images train a model, which select it, which measure it.

Given splits are kept. What is missing is carved out of the rest: 15% for `test`, 10% for `val`,
class by class. Pictures that are or look the same stay together, so that no test image has been
trained on. The choice depends on the seed and the content hashes alone, not on names or order.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from imgcls.data.layout import SPLITS

TRAIN, VAL, TEST = range(len(SPLITS))
SHARES = {TEST: 0.15, VAL: 0.10}
SCENE = 10
"""Files that look the same from which on they may be shots of one scene."""


def assign_splits(
    labels: npt.NDArray[np.int64],
    given: npt.NDArray[np.int64],
    picture: npt.NDArray[np.int64],
    hashes: Sequence[str],
    seed: int,
) -> npt.NDArray[np.int64]:
    """Split codes (0 train, 1 val, 2 test) of `[n]` images.

    `labels` are class codes; `given` holds split codes, -1 where no folder states one; `picture`
    says which of the content hashes `hashes` each image has, one for all pictures that look the
    same, -1 for images that could not be read: those stay in `train`, or where they were given.

    A class with three different images or more has one in every split; with two, the second goes
    to `test` where that is missing, else to `val`; a single one trains.
    """
    splits = np.where(given < 0, TRAIN, given)
    readable = picture >= 0
    missing = [code for code in (TEST, VAL) if not (given[readable] == code).any()]
    pool = np.flatnonzero(readable & (splits == TRAIN))
    if not missing or not len(pool):
        return splits
    there, groups = np.unique(picture[pool], return_inverse=True)
    names = [hashes[number] for number in there.tolist()]
    sizes = np.bincount(groups)
    # An image under two labels is one group still: it follows the first of its classes.
    owner = np.full(len(names), labels.max() + 1)
    np.minimum.at(owner, groups, labels[pool])
    draw = _draw(names, seed)
    chosen = np.full(len(names), TRAIN)
    order = np.lexsort((draw, owner))
    for members in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
        _carve(chosen, members, sizes, missing)
    splits[pool] = chosen[groups]
    return splits


def without_scenes(
    picture: npt.NDArray[np.int64],
    content: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """`picture`, but the content of each image where one picture is most of a class.

    Ten files and more of different bytes that look the same and are over half of a class are shots
    of a fixed scene: kept together they would leave nothing to test on. All are codes `[n]`, -1 in
    `picture` and `content` for images that could not be read.
    """
    rows = np.flatnonzero((picture >= 0) & (labels >= 0))
    if not len(rows):
        return picture
    size = int(max(picture.max(), content.max())) + 1
    pairs, counts = np.unique(labels[rows] * size + picture[rows], return_counts=True)
    large = pairs[counts > np.bincount(labels[rows])[pairs // size] / 2] % size
    if not len(large):
        return picture
    files = np.unique(picture[rows] * size + content[rows]) // size
    scenes = large[np.bincount(files, minlength=size)[large] >= SCENE]
    return np.where(np.isin(picture, scenes), content, picture)


def _draw(names: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    """A random-looking number for each content hash: splitmix64 (Steele et al., 2014)."""
    value = np.array([int(name[:16], 16) for name in names], dtype=np.uint64)
    with np.errstate(over="ignore"):
        value ^= np.uint64(seed % 2**64) * np.uint64(0x9E3779B97F4A7C15)
        value += np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _carve(
    chosen: npt.NDArray[np.int64],
    members: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    missing: list[int],
) -> None:
    """Move groups of one class, already in drawn order, out of train."""
    images = int(sizes[members].sum())
    wanted = {code: max(1, round(SHARES[code] * images)) for code in missing[: len(members) - 1]}
    left = len(members)
    for group in members.tolist():
        if not any(wanted.values()):
            break
        for code in wanted:
            if sizes[group] <= wanted[code] and left > 1:
                chosen[group] = code
                wanted[code] -= int(sizes[group])
                left -= 1
                break
    for code in wanted:
        if (chosen[members] != code).all():
            # Every group is larger than the share: the smallest one goes.
            still = members[chosen[members] == TRAIN]
            if len(still) > 1:
                chosen[still[np.argmin(sizes[still])]] = code
