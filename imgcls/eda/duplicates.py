"""Duplicates: files with the very same bytes, and whether they make a dataset lie.

A copy in another split lets a model be tested on what it was trained on; a copy under another
label teaches it both. Pictures that only look alike are not looked for here.
"""

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from imgcls.data.columns import codes
from imgcls.eda.types import DuplicateFile, DuplicateGroup, Duplicates

if TYPE_CHECKING:
    from imgcls.data import Dataset

LISTED = 1_000
"""Groups (and files of one group) listed at most; the counts are of all."""


def find_duplicates(dataset: "Dataset") -> Duplicates:
    """All readable images with the same bytes as another one."""
    index = dataset.index
    readable = np.flatnonzero(index["error"].is_null().to_numpy())
    content = codes(index["content_hash"])[readable]
    order = np.argsort(content, kind="stable")
    starts = np.flatnonzero(np.diff(content[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    labels = codes(index["label" if dataset.task == "classification" else "target"])
    splits = codes(index["split"])
    repeated = sizes > 1
    across = [_differ(column[readable[order]], starts)[repeated] for column in (labels, splits)]
    found = []
    groups_of = zip(starts[repeated].tolist(), sizes[repeated].tolist(), *across, strict=True)
    for start, size, across_labels, across_splits in groups_of:
        rows = readable[order[start : start + size]]
        found.append((not across_labels, not across_splits, int(rows[0]), rows))
    found.sort(key=lambda group: group[:3])
    listed = found[:LISTED]
    # One look-up for all groups: one for each would take most of the time.
    shown = [rows[:LISTED] for *_, rows in listed]
    table = index.select(["path", "label", "split"])
    columns = table.take(np.concatenate([*shown, np.empty(0, np.int64)])).to_pydict().values()
    files = map(DuplicateFile, *columns)
    firsts = np.array([first for _, _, first, _ in listed], np.int64)
    hashes = index["content_hash"].take(firsts).to_pylist()
    groups = [
        DuplicateGroup(
            content_hash=content_hash or "",
            images=len(rows),
            across_splits=not same_split,
            across_labels=not same_label,
            files=list(islice(files, len(rows[:LISTED]))),
        )
        for content_hash, (same_label, same_split, _, rows) in zip(hashes, listed, strict=True)
    ]
    return Duplicates(
        total=len(found),
        images=sum(len(rows) - 1 for *_, rows in found),
        across_splits=sum(not group[1] for group in found),
        across_labels=sum(not group[0] for group in found),
        groups=groups,
    )


def _differ(values: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether the values of each group are not all the same; groups lie one behind the other."""
    if not len(values):
        return np.zeros(0, bool)
    unequal: npt.NDArray[np.bool_] = np.minimum.reduceat(values, starts) != np.maximum.reduceat(
        values, starts
    )
    return unequal
