"""Duplicates: files with the very same bytes, and whether they make a dataset lie.

A copy in another split lets a model be tested on what it was trained on; a copy under another
label teaches it both. Pictures that only look alike are not looked for here.
"""

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from imgcls.eda.statistics import codes
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
    found = []
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        rows = readable[order[start : start + size]]
        across_labels = len(np.unique(labels[rows])) > 1
        across_splits = len(np.unique(splits[rows])) > 1
        found.append((not across_labels, not across_splits, int(rows[0]), rows))
    found.sort(key=lambda group: group[:3])
    listed = found[:LISTED]
    # One look-up for all groups: one for each would take most of the time.
    shown = [rows[:LISTED] for *_, rows in listed]
    table = index.take(np.concatenate(shown)) if shown else index.slice(0, 0)
    files = iter(table.select(["path", "label", "split"]).to_pylist())
    groups = [
        DuplicateGroup(
            content_hash=dataset.content_hash(first) or "",
            images=len(rows),
            across_splits=not same_split,
            across_labels=not same_label,
            files=[DuplicateFile(**row) for row in islice(files, len(rows[:LISTED]))],
        )
        for same_label, same_split, first, rows in listed
    ]
    return Duplicates(
        total=len(found),
        images=sum(len(rows) - 1 for *_, rows in found),
        across_splits=sum(not group[1] for group in found),
        across_labels=sum(not group[0] for group in found),
        groups=groups,
    )
