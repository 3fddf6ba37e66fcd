"""Which trial is better, and what of it is chance: intervals by bootstrap over the images.

Trials are compared on the same images, so differences are paired. The best of many looks better
than it is; the intervals of the differences therefore hold for all pairs at once.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from imgcls.engine import verdicts

Floats = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
"""`[n]`: what each image says for a trial, more is better; their mean is what is compared."""

LEVEL = 0.95
RESAMPLES = 2_000
_CHUNK = 50
"""Resamples at a time: a validation split of 100,000 images then takes 40 MB."""


def scores(answers: Floats, targets: npt.ArrayLike, *, threshold: float | None = None) -> Scores:
    """1 for each right verdict of `[n, C]` probabilities; of `[n]` scores minus the error."""
    truth = np.asarray(targets)
    if answers.ndim == 1:
        return np.asarray(-np.abs(answers.astype(np.float64) - truth))
    return np.asarray(verdicts(answers, threshold) == truth, np.float64)


def interval(values: Scores, *, share: bool, seed: int = 0) -> tuple[float, float]:
    """An interval of the mean at `LEVEL`: Wilson's (1927) where it is a share of right verdicts,
    else by percentile bootstrap (Efron 1979)."""
    if share:
        found = stats.binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL, "wilson")
        return float(found.low), float(found.high)
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=_CHUNK,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def behind_best(
    trials: Sequence[Scores], *, share: bool, seed: int = 0
) -> list[tuple[float, float]]:
    """How far the first of the `trials` is ahead of each, as simultaneous intervals at `LEVEL`.

    The bootstrap distribution of the largest studentised difference between any two trials gives
    one width for all of them (max-T, Westfall & Young 1993), so that the intervals hold whichever
    trial came out best. Of shares of right verdicts, one image on which two trials differ is added
    to those that there are (Agresti & Min 2005): two that agree everywhere may differ elsewhere.
    """
    values = np.stack(trials)
    count, images = values.shape
    ahead = values[0].mean() - values.mean(axis=1)
    covariance = np.atleast_2d(np.cov(values)) / images if images > 1 else np.zeros((count, count))
    variance = np.diag(covariance)
    square = np.maximum(variance[:, None] + variance[None] - 2 * covariance, 0)
    spread = np.sqrt(square + float(share) / images**2)
    np.fill_diagonal(spread, 0)
    inverse = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    draw = np.random.default_rng(seed)
    largest = np.zeros(RESAMPLES)
    for start in range(0, RESAMPLES, _CHUNK):
        weights = draw.multinomial(images, np.full(images, 1 / images), size=_CHUNK) / images
        means = weights @ values.T - values.mean(axis=1)
        part = largest[start : start + _CHUNK]
        for i in range(count):
            np.maximum(part, (np.abs(means - means[:, i : i + 1]) * inverse[i]).max(1), out=part)
    # Where hardly any image tells trials apart the bootstrap has too little to draw from.
    width = max(float(np.quantile(largest, LEVEL)), stats.norm.ppf((1 + LEVEL) / 2)) * spread[0]
    return [(float(gap - w), float(gap + w)) for gap, w in zip(ahead, width, strict=True)]
