"""Profile: everything that the index of a dataset tells, in one typed report.

No image is opened: the pass that built the index has measured them all.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from imgcls.data.columns import positions
from imgcls.data.layout import SPLITS
from imgcls.eda.columns import Columns
from imgcls.eda.duplicates import LISTED, find_duplicates
from imgcls.eda.histograms import Histograms
from imgcls.eda.statistics import group_stats
from imgcls.eda.targets import target_stats
from imgcls.eda.types import Profile, Size, Sizes, Unreadable, UnreadableImage

if TYPE_CHECKING:
    from imgcls.data import Dataset


def profile(dataset: "Dataset") -> Profile:
    """Statistics overall, by split, by class and by both; duplicates; unreadable files."""
    columns = Columns(dataset.index)
    bins = Histograms(columns)
    labels = []
    if dataset.task == "classification":
        labels = sorted(dataset.index["label"].unique().to_pylist())
    cells = _cells(dataset, labels)
    split_of = positions(dataset.index["split"], SPLITS)
    by_split = {split: np.flatnonzero(split_of == at) for at, split in enumerate(SPLITS)}
    by_class = {label: np.concatenate([cells[s][label] for s in SPLITS]) for label in labels}
    return Profile(
        tag=dataset.tag,
        seed=dataset.seed,
        labels=dataset.labels,
        overall=group_stats(columns, np.arange(len(dataset)), bins),
        splits={split: group_stats(columns, rows, bins) for split, rows in by_split.items()},
        classes={label: group_stats(columns, rows, bins) for label, rows in by_class.items()},
        split_classes={
            split: {label: group_stats(columns, rows) for label, rows in by_label.items()}
            for split, by_label in cells.items()
        },
        edges=bins.edges,
        sizes=_sizes(columns),
        target=target_stats(dataset) if dataset.task == "regression" else None,
        duplicates=find_duplicates(dataset),
        unreadable=_unreadable(dataset),
    )


def _cells(dataset: "Dataset", labels: list[str]) -> dict[str, dict[str, npt.NDArray[np.int64]]]:
    """Row numbers by split, then by label; without labels, splits alone."""
    if not labels:
        return {split: {} for split in SPLITS}
    split_at = {split: at for at, split in enumerate(SPLITS)}
    cell = positions(dataset.index["split"], SPLITS) * len(labels)
    cell += positions(dataset.index["label"], labels)
    order = np.argsort(cell, kind="stable")
    bounds = np.searchsorted(cell[order], np.arange(len(SPLITS) * len(labels) + 1))
    return {
        split: {
            label: order[bounds[base + at] : bounds[base + at + 1]]
            for at, label in enumerate(labels)
        }
        for split, base in ((split, split_at[split] * len(labels)) for split in SPLITS)
    }


def _sizes(columns: Columns) -> Sizes:
    sides = np.stack((columns.width, columns.height))[:, columns.readable]
    one = sides[0] << 32 | sides[1]
    _, first, images = np.unique(one, return_index=True, return_counts=True)
    # The most common ones, and of equally common ones those that come first.
    order = np.lexsort((first, -images))[:LISTED]
    return Sizes(
        total=len(first),
        sizes=[
            Size(width=width, height=height, images=count)
            for width, height, count in zip(
                *sides[:, first[order]].tolist(), images[order].tolist(), strict=True
            )
        ],
    )


def _unreadable(dataset: "Dataset") -> Unreadable:
    bad = dataset.index.filter(dataset.index["error"].is_valid())
    listed = []
    for row in bad.slice(0, LISTED).select(["path", "error"]).to_pylist():
        code, _, reason = row["error"].partition(": ")
        listed.append(UnreadableImage(path=row["path"], code=code, reason=reason))
    return Unreadable(total=len(bad), images=listed)
