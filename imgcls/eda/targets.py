"""Targets of a regression: their spread, their histogram by split, and the error to beat."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from imgcls.data.layout import SPLITS
from imgcls.eda.types import TargetStats

if TYPE_CHECKING:
    from imgcls.data import Dataset

BINS = 20


def target_stats(dataset: "Dataset") -> TargetStats | None:
    """Of all readable images of a regression; None where there is none."""
    index = dataset.index.filter(dataset.index["error"].is_null())
    if not len(index):
        return None
    targets, split_of = index["target"].to_numpy(), index["split"].to_numpy()
    edges = np.linspace(targets.min(), targets.max(), BINS + 1)
    median = float(np.median(targets))
    groups = Counter(name for name in index["group"].to_pylist() if name is not None)
    return TargetStats(
        name=dataset.target_name,
        images=len(targets),
        min=float(targets.min()),
        max=float(targets.max()),
        mean=float(targets.mean()),
        std=float(targets.std()),
        median=median,
        mae_of_median=float(np.abs(targets - median).mean()),
        edges=edges.tolist(),
        counts={
            split: np.histogram(targets[split_of == split], edges)[0].tolist() for split in SPLITS
        },
        groups=dict(sorted(groups.items())),
    )
