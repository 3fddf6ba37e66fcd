"""Plots of a report, one function each: from figures to a matplotlib figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from imgcls.card import CurvePoint, Interval, Metrics
from training.evaluate import calibration_bins
from training.resample import Weights

Floats = npt.NDArray[np.float32]

RC: Any = {
    "text.parse_math": False,  # labels may hold dollar signs
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "figure.dpi": 130,
    "legend.frameon": False,
}
"""Under which the functions are to be called, and their figures saved."""
BLUE, ORANGE, GREY = "#2f6db3", "#d9822b", "#9aa3b2"
_NUMBERED = 20
"""Classes up to which a confusion matrix has numbers in it."""
_MOST_CLASSES = 60
"""In the plot by class; the worst are shown."""
_MOST_CURVES = 10
_COLUMNS = 6
_RANGES = 10
_LABEL = 24


def confusion(metrics: Metrics) -> Figure:
    matrix = np.array(metrics.confusion_matrix, np.float64)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    labels = [short(m.label) for m in metrics.per_class]
    side = float(np.clip(0.45 * len(labels) + 2, 4, 14))
    figure, axes = _axes(side, side * 0.95)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(labels))
    small = 9 if len(labels) <= _NUMBERED else 6
    axes.set_xticks(places, labels, rotation=90 if len(labels) > 6 else 0, fontsize=small)
    axes.set_yticks(places, labels, fontsize=small)
    if len(labels) <= _NUMBERED:
        for true, guessed in np.ndindex(*matrix.shape):
            if matrix[true, guessed]:
                colour = "white" if shares[true, guessed] > 0.5 else "black"
                text = f"{matrix[true, guessed]:.0f}"
                axes.text(guessed, true, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set(xlabel="answer", ylabel="truth")
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the class")
    return figure


def classes(metrics: Metrics) -> Figure:
    found = sorted((m for m in metrics.per_class if m.support), key=lambda m: m.f1)[:_MOST_CLASSES]
    places = np.arange(len(found))
    figure, axes = _axes(7, max(2.0, 0.3 * len(found) + 1))
    axes.barh(places + 0.2, [m.precision for m in found], 0.38, color=BLUE, label="precision")
    axes.barh(places - 0.2, [m.recall for m in found], 0.38, color=ORANGE, label="recall")
    axes.set_yticks(places, [f"{short(m.label)} ({m.support:,})" for m in found])
    axes.set(xlim=(0, 1), xlabel="share; in brackets, images of the class")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def reliability(confidence: Weights, correct: npt.NDArray[np.bool_]) -> Figure:
    bins = calibration_bins(confidence, correct)
    said, right = [b[1] for b in bins], [b[2] for b in bins]
    figure, (axes, counts) = _two(5, 5, [3, 1])
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="as it should be")
    axes.plot(said, right, marker="o", color=BLUE, label="the model")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right")
    axes.legend(loc="upper left")
    counts.hist(confidence, bins=30, range=(0, 1), color=BLUE)
    counts.set(xlim=(0, 1), xlabel="probability of the verdict", ylabel="images")
    return figure


def roc(labels: Sequence[str], targets: npt.NDArray[np.int64], probabilities: Floats) -> Figure:
    figure, axes = _axes(5, 4.6)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--")
    for code in [1] if len(labels) == 2 else range(len(labels))[:_MOST_CURVES]:
        if 0 < (targets == code).sum() < len(targets):
            false, true, _ = roc_curve(targets == code, probabilities[:, code])
            axes.plot(false, true, label=short(labels[code]))
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="false positives", ylabel="true positives")
    axes.legend(loc="lower right", fontsize=7)
    return figure


def predictions(targets: Floats, scores: Floats, target: str, interval: Interval) -> Figure:
    figure, axes = _axes(5, 4.8)
    low, high = float(min(targets.min(), scores.min())), float(max(targets.max(), scores.max()))
    line = np.array([low, high])
    axes.fill_between(
        line,
        line - interval.half_width,
        line + interval.half_width,
        color=GREY,
        alpha=0.25,
        label=f"interval of {interval.coverage:.0%}",
    )
    axes.plot(line, line, color=GREY, linestyle="--")
    axes.scatter(targets, scores, s=10, color=BLUE, alpha=0.5, linewidths=0)
    axes.set(xlabel=f"{short(target)}, truth", ylabel="answer")
    axes.legend(loc="upper left")
    return figure


def errors(targets: Floats, scores: Floats, target: str, median: float) -> Figure:
    edges = np.linspace(float(targets.min()), float(targets.max()), _RANGES + 1)
    place = np.clip(np.searchsorted(edges, targets, "right") - 1, 0, _RANGES - 1)
    counts = np.bincount(place, minlength=_RANGES)

    def mean(errors: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return np.bincount(place, np.abs(errors), _RANGES) / counts

    centres = (edges[1:] + edges[:-1]) / 2
    figure, (axes, below) = _two(6, 4.8, [3, 1])
    axes.plot(centres, mean(targets - median), color=GREY, marker=".", label="median")
    axes.plot(centres, mean(targets - scores), color=BLUE, marker="o", label="the model")
    axes.set(ylabel="mean absolute error", ylim=(0, None))
    axes.legend()
    below.bar(centres, counts, (edges[1] - edges[0]) * 0.9, color=BLUE)
    below.set(xlabel=f"{short(target)}, truth", ylabel="images")
    return figure


def history(rows: Sequence[dict[str, float]]) -> Figure | None:
    """Losses, and beside them what else was measured on validation images; None without epochs."""
    named = {name for row in rows for name in row} - {"epoch", "seconds", "lr"}
    losses = sorted(name for name in named if name.endswith("loss"))
    if not losses:
        return None
    groups = [losses, *([name] for name in sorted(named - set(losses)))]
    figure = Figure(figsize=(4.4 * len(groups), 3.2), layout="constrained")
    for group, axes in zip(groups, figure.subplots(1, len(groups), squeeze=False)[0], strict=True):
        for name, colour in zip(group, (BLUE, ORANGE, GREY), strict=False):
            points = [(row["epoch"], row[name]) for row in rows if {"epoch", name} <= row.keys()]
            style = "." if len(points) < 30 else ""
            axes.plot(*zip(*points, strict=True), color=colour, marker=style, label=_words(name))
        axes.set(xlabel="epoch")
        axes.legend()
    return figure


def learning_curve(points: Sequence[CurvePoint]) -> Figure:
    name = next(iter(points[0].test))
    sizes = [point.images for point in points]
    figure, axes = _axes(5.5, 3.6)
    axes.plot(
        sizes, [p.train[name] for p in points], "o-", color=ORANGE, label="images it has seen"
    )
    axes.plot(sizes, [p.test[name] for p in points], "o-", color=BLUE, label="test images")
    axes.set(xlabel="training images", ylabel=_words(name), xlim=(0, None))
    axes.legend()
    return figure


def mistakes(pictures: Sequence[npt.NDArray[np.uint8]], captions: Sequence[str]) -> Figure:
    """Pictures `uint8 [side, side, 3]` in rows of six, a caption of two lines over each."""
    side, gap, over = len(pictures[0]), 10, 40
    rows = -(-len(pictures) // _COLUMNS)
    sheet = np.full((rows * (side + over), _COLUMNS * (side + gap) - gap, 3), 255, np.uint8)
    figure = Figure(figsize=(sheet.shape[1] / 100, sheet.shape[0] / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        top, left = number // _COLUMNS * (side + over) + over, number % _COLUMNS * (side + gap)
        sheet[top : top + side, left : left + side] = picture
        axes.text(left + side / 2, top - 5, caption, ha="center", va="bottom", fontsize=8)
    axes.imshow(sheet)
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _two(width: float, height: float, ratios: list[int]) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(2, 1, height_ratios=ratios, sharex=True)


def _words(name: str) -> str:
    return name.replace("_", " ")


def short(label: str) -> str:
    """A label as it fits into a plot."""
    return label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"
