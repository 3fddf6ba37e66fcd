"""How far a figure may be off by the luck of which images were tested: the bootstrap.

Images are drawn anew with replacement, which is to give them whole weights; a figure is a function
of such weights, and its own value is that of weights of one (Efron & Tibshirani 1993).
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float64]
Figures = Mapping[str, float]

RESAMPLES = 1_000
CONFIDENCE = 0.95


def intervals(
    figures: Callable[[Weights], Figures], count: int, *, resamples: int = RESAMPLES
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of `CONFIDENCE` for each of the `figures` of `count` images.

    `figures` takes weights `float64 [count]`. What is not a number in a resample is left out of
    it. Where no mistake was seen the interval has no width: it cannot tell what was never drawn.
    """
    if resamples == 0:
        return {}
    draw = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    for _ in range(resamples):
        weights = np.bincount(draw.integers(0, count, count), minlength=count).astype(np.float64)
        for name, value in figures(weights).items():
            if np.isfinite(value):
                found.setdefault(name, []).append(value)
    tail = (1 - CONFIDENCE) / 2
    bounds = {name: np.quantile(values, (tail, 1 - tail)) for name, values in found.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


class MidRanks:
    """Ranks of values `[n, k]`, column by column, under any weights; equal values share theirs."""

    def __init__(self, values: npt.NDArray[np.floating]) -> None:
        self._order = np.argsort(values, axis=0, kind="stable")
        ordered = np.take_along_axis(values, self._order, 0)
        positions = np.broadcast_to(np.arange(len(values))[:, None], values.shape)
        changes = np.ones(values.shape, bool)
        changes[1:] = ordered[1:] != ordered[:-1]
        first = np.maximum.accumulate(np.where(changes, positions, 0), 0)
        ends = np.ones(values.shape, bool)
        ends[:-1] = changes[1:]
        behind = np.where(ends, positions + 1, len(values))
        behind = np.minimum.accumulate(behind[::-1], 0)[::-1]
        self._first, self._behind = np.empty_like(first), np.empty_like(behind)
        np.put_along_axis(self._first, self._order, first, 0)
        np.put_along_axis(self._behind, self._order, behind, 0)

    def of(self, weights: Weights) -> Weights:
        """For each value `[n, k]`, the weight of all smaller ones and half that of its equals."""
        total = np.zeros((len(weights) + 1, weights.shape[1]))
        np.cumsum(np.take_along_axis(weights, self._order, 0), 0, out=total[1:])
        below = np.take_along_axis(total, self._first, 0)
        return (below + np.take_along_axis(total, self._behind, 0)) / 2
