"""Histograms of what is measured of each image, with bins that all groups of a dataset share."""

import numpy as np
import numpy.typing as npt

from imgcls.eda.columns import Columns

BINS = 20
_LINEAR = ("width", "height", "brightness")
_SPREAD = ("pixels", "aspect", "file_size", "blur")
"""Of these a ratio says more than a difference."""
_LEAST_BLUR = 0.1
"""Lower edge of the blur of pictures without any structure, whose blur is 0."""


class Histograms:
    """Edges, and the bin of every image."""

    def __init__(self, columns: Columns) -> None:
        self.edges: dict[str, list[float]] = {}
        """`BINS + 1` for each figure that some image has; two around a value that all share."""
        self._bins: dict[str, npt.NDArray[np.int64]] = {}
        for name in (*_LINEAR, *_SPREAD):
            values = np.asarray(getattr(columns, name), np.float64)
            known = columns.readable & np.isfinite(values)
            if known.any():
                edges = _edges(name, values[known])
                place = np.searchsorted(edges, values, side="right") - 1
                place = np.clip(place, 0, len(edges) - 2)
                self.edges[name] = edges.tolist()
                self._bins[name] = np.where(known, place, -1)

    def counts(self, rows: npt.NDArray[np.int64]) -> dict[str, list[int]]:
        """Of the given rows of the index, by figure."""
        return {
            name: np.bincount(bins[rows] + 1, minlength=len(self.edges[name]))[1:].tolist()
            for name, bins in self._bins.items()
        }


def _edges(name: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    if name == "brightness":
        low, high = 0.0, 255.0
    if name == "blur":
        low, high = max(low, _LEAST_BLUR), max(high, _LEAST_BLUR)
    if low == high:
        return np.array([low - 0.5, high + 0.5])
    return (np.geomspace if name in _SPREAD else np.linspace)(low, high, BINS + 1)
