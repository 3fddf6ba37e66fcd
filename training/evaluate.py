"""What a model is worth on held-out images: its answers and the figures made of them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from imgcls.card import ClassMetrics, Interval, Metrics, RegressionMetrics
from imgcls.engine import verdicts
from training.resample import RESAMPLES, MidRanks, Weights, intervals

Floats = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]

BINS = 15
"""Of equal width from 0 to 1, for the calibration error."""
_EPSILON = 1e-7
"""Probabilities are kept this far from 0 and 1 in the log-loss."""


def log_loss(probabilities: Floats, targets: Targets) -> float:
    """Mean negative log-likelihood, in nats."""
    return float(_losses(probabilities, targets).mean())


def measure(
    labels: Sequence[str],
    targets: Targets,
    probabilities: Floats,
    *,
    threshold: float | None = None,
    abstain_below: float | None = None,
    split: str = "test",
    resamples: int = RESAMPLES,
) -> Metrics:
    """All figures of one split. Precision without a prediction and recall without an image are 0.

    `macro_f1` is the mean over the classes that occur, as true or as predicted ones. The intervals
    are made of `resamples`; 0 makes none.
    """
    sample = _Answers(targets, probabilities, threshold)
    found = sample.figures(np.ones(len(targets)))
    indices = np.arange(len(labels))
    precision, recall, f1, support = precision_recall_fscore_support(
        targets, sample.predicted, labels=indices, zero_division=0.0
    )
    answered = sample.confidence >= (abstain_below or 0.0)
    return Metrics(
        split=split,
        images=len(targets),
        accuracy=found["accuracy"],
        macro_f1=found["macro_f1"],
        log_loss=found["log_loss"],
        roc_auc=found["roc_auc"] if np.isfinite(found["roc_auc"]) else None,
        ece=calibration_error(sample.confidence, sample.correct),
        intervals=intervals(sample.figures, len(targets), resamples=resamples),
        answered=None if abstain_below is None else float(answered.mean()),
        answered_accuracy=(
            None
            if abstain_below is None or not answered.any()
            else float(sample.correct[answered].mean())
        ),
        per_class=[
            ClassMetrics(
                label=label,
                precision=float(precision[i]),
                recall=float(recall[i]),
                f1=float(f1[i]),
                support=int(support[i]),
            )
            for i, label in enumerate(labels)
        ],
        confusion_matrix=confusion_matrix(targets, sample.predicted, labels=indices).tolist(),
    )


def measure_scores(
    targets: Floats,
    scores: Floats,
    *,
    median: float,
    interval: Interval,
    split: str = "test",
    resamples: int = RESAMPLES,
) -> RegressionMetrics:
    """All figures of one split: `targets` and `scores` are `float32 [n]`, `median` that of the
    training targets. R2 of targets that are all equal is 0.
    """
    sample = _Scores(targets, scores)
    found = sample.figures(np.ones(len(targets)))
    return RegressionMetrics(
        split=split,
        images=len(targets),
        mae=found["mae"],
        rmse=found["rmse"],
        r2=found["r2"],
        spearman=found["spearman"],
        mae_of_median=float(np.abs(targets.astype(np.float64) - median).mean()),
        coverage=float((np.abs(sample.errors) <= interval.half_width).mean()),
        intervals=intervals(sample.figures, len(targets), resamples=resamples),
    )


def calibration_bins(
    confidence: Weights, correct: npt.NDArray[np.bool_]
) -> list[tuple[int, float, float]]:
    """Of each of the `BINS` that has an image: images, mean confidence, share that is correct."""
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    said = np.bincount(place, confidence, BINS)
    right = np.bincount(place, correct.astype(np.float64), BINS)
    return [
        (int(counts[b]), float(said[b] / counts[b]), float(right[b] / counts[b]))
        for b in np.flatnonzero(counts)
    ]


def calibration_error(confidence: Weights, correct: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy over bins, by the
    images in them (Naeini et al. 2015)."""
    bins = calibration_bins(confidence, correct)
    return sum(images * abs(said - right) for images, said, right in bins) / len(confidence)


def confidence(probabilities: Floats, threshold: float | None) -> Weights:
    """Probability `float64 [n]` of the verdict on each image."""
    verdict = verdicts(probabilities, threshold)
    return probabilities[np.arange(len(verdict)), verdict].astype(np.float64)


class _Answers:
    """The probabilities of a split, made ready for figures under any weights of the images."""

    def __init__(self, targets: Targets, probabilities: Floats, threshold: float | None) -> None:
        self.predicted = verdicts(probabilities, threshold)
        self.correct = self.predicted == targets
        self.confidence = confidence(probabilities, threshold)
        self._classes = probabilities.shape[1]
        self._targets = targets
        self._losses = _losses(probabilities, targets)
        # Of two classes, each against the rest is the same.
        ranked = np.arange(self._classes) if self._classes > 2 else np.array([1])
        self._ranks = MidRanks(probabilities[:, ranked])
        self._positive = targets[:, None] == ranked

    def figures(self, weights: Weights) -> dict[str, float]:
        total = weights.sum()
        return {
            "accuracy": float(weights @ self.correct / total),
            "macro_f1": self._macro_f1(weights),
            "log_loss": float(weights @ self._losses / total),
            "roc_auc": self._roc_auc(weights),
        }

    def _macro_f1(self, weights: Weights) -> float:
        true = np.bincount(self._targets, weights, self._classes)
        guessed = np.bincount(self.predicted, weights, self._classes)
        hits = np.bincount(self._targets, weights * self.correct, self._classes)
        occurring = true + guessed > 0
        return float((2 * hits[occurring] / (true + guessed)[occurring]).mean())

    def _roc_auc(self, weights: Weights) -> float:
        """Mean over the classes that have an image and lack one; not a number where none has."""
        positive = weights[:, None] * self._positive
        negative = weights[:, None] * ~self._positive
        pairs = positive.sum(0) * negative.sum(0)
        won = (positive * self._ranks.of(negative)).sum(0)
        return float((won[pairs > 0] / pairs[pairs > 0]).mean()) if pairs.any() else float("nan")


class _Scores:
    """The scores of a split, made ready for figures under any weights of the images."""

    def __init__(self, targets: Floats, scores: Floats) -> None:
        self._targets = targets.astype(np.float64)
        self.errors = scores.astype(np.float64) - self._targets
        self._ranks = MidRanks(np.stack([targets, scores], 1))

    def figures(self, weights: Weights) -> dict[str, float]:
        total = weights.sum()
        squared = weights @ self.errors**2 / total
        around = self._targets - weights @ self._targets / total
        variance = weights @ around**2 / total
        ranks = self._ranks.of(np.stack([weights, weights], 1))
        ranks -= weights @ ranks / total
        spreads = float(np.sqrt(np.prod(weights @ ranks**2)))
        return {
            "mae": float(weights @ np.abs(self.errors) / total),
            "rmse": float(np.sqrt(squared)),
            "r2": float(1 - squared / variance) if variance > 0 else 0.0,
            "spearman": float(weights @ ranks.prod(1)) / spreads if spreads > 0 else 0.0,
        }


def _losses(probabilities: Floats, targets: Targets) -> Weights:
    likelihood = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    losses: Weights = -np.log(likelihood.clip(_EPSILON, 1.0))
    return losses
