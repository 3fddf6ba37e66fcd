"""Report: what a model reaches, for people: one page of HTML that needs no other file.

Training draws the plots and keeps the worst mistakes, in `report/` beside the graph; figures come
from the card. A model without that folder has a page without pictures.
"""

import html
import json
import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imgcls.card import Metrics, ModelCard, RegressionMetrics
from imgcls.errors import BadModel, NotFound
from imgcls.page import data_url, document, table, text, tile

REPORT_DIR = "report"
MISTAKES_FILE = "mistakes.json"

PLOTS = {
    "confusion": "Confusion matrix",
    "classes": "Precision and recall of each class",
    "reliability": "Calibration: how often a verdict of some probability is right",
    "roc": "ROC curves, each class against the rest",
    "predictions": "Answers beside the truth",
    "errors": "Errors by range of the truth",
    "history": "Training, epoch by epoch",
    "learning_curve": "What more training images bring",
    "mistakes": "Worst mistakes",
}
"""The plots that there can be, by name, each a PNG of that name."""

_NAMES = {
    "macro_f1": "macro F1",
    "log_loss": "log-loss",
    "roc_auc": "ROC-AUC",
    "ece": "calibration error",
    "answered": "share answered",
    "answered_accuracy": "accuracy of the answered",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R2",
    "mae_of_median": "MAE of the median",
}
_SHOWN = (
    "accuracy", "macro_f1", "log_loss", "roc_auc", "ece", "answered", "answered_accuracy",
    "mae", "rmse", "r2", "spearman", "mae_of_median", "coverage",
)  # fmt: skip


class Mistake(BaseModel):
    """A test image on which the model was badly wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^[0-9]{2}\.jpg$")
    """Of the picture, in `report/`."""
    image: str
    """The path in the dataset."""
    truth: str
    answer: str
    probability: float | None = None
    """Of the answer, where that is a class."""


class Mistakes(BaseModel):
    """`report/mistakes.json`: the worst ones, worst first."""

    schema_version: int = 1
    mistakes: list[Mistake] = Field(max_length=100)


def plots(folder: Path) -> list[str]:
    """Names of the plots that the model in `folder` has."""
    return [name for name in PLOTS if (folder / REPORT_DIR / f"{name}.png").is_file()]


def plot(folder: Path, card: ModelCard, name: str) -> bytes:
    """A plot of the model in `folder` as PNG. Raises `NotFound`, saying which ones it has."""
    there = plots(folder)
    if name not in there:
        raise NotFound(
            f"{card.tag} has no plot {name[:80]!r}; it has: {', '.join(there)}."
            if there
            else f"{card.tag} has no plots; models trained from now on have some."
        )
    return (folder / REPORT_DIR / f"{name}.png").read_bytes()


def figures(metrics: Metrics | RegressionMetrics) -> list[tuple[str, float, str]]:
    """Name, value, and interval as text (or nothing) of every figure that there is."""
    values = metrics.model_dump(include=set(_SHOWN))
    found = []
    for key in _SHOWN:
        if (value := values.get(key)) is None:
            continue
        interval = metrics.intervals.get(key)
        shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        found.append((_NAMES.get(key, key), float(value), shown))
    return found


def page(folder: Path, card: ModelCard) -> str:
    """The whole report of the model in `folder` as HTML. Raises `BadModel` for damaged files."""
    parts = [
        _headline(card),
        *(_picture(folder, card, name) for name in plots(folder) if name != "mistakes"),
        _classes(card),
        _folds(card),
        _curve(card),
        _mistakes(folder, card),
        _facts(card),
    ]
    return document(card.tag, parts)


def _headline(card: ModelCard) -> str:
    metrics = card.metrics
    tiles = "".join(tile(name, f"{value:.4f}", shown) for name, value, shown in figures(metrics))
    made = f"{card.created_at:%Y-%m-%d %H:%M} UTC"
    subtitle = (
        f"{card.recipe_name}, trained on {card.dataset.tag} ({card.dataset.images:,} images), "
        f"{made}. Measured on {metrics.images:,} images of the {metrics.split} split, of which it "
        "has seen none. Ranges: where 95% of such figures lie if the images are drawn anew "
        "(bootstrap)."
    )
    return f"<h1>{html.escape(card.tag)}</h1><p>{html.escape(subtitle)}</p><div>{tiles}</div>"


def _picture(folder: Path, card: ModelCard, name: str) -> str:
    title = html.escape(PLOTS[name])
    source = data_url(plot(folder, card, name))
    return f'<h2>{title}</h2><img class=plot alt="{title}" src="{source}">'


def _classes(card: ModelCard) -> str:
    if not isinstance(card.metrics, Metrics):
        return ""
    rows = [
        (m.label, f"{m.precision:.3f}", f"{m.recall:.3f}", f"{m.f1:.3f}", f"{m.support:,}")
        for m in card.metrics.per_class
    ]
    columns = ("class", "precision", "recall", "F1", "images")
    return "<h2>Classes</h2>" + table(columns, rows)


def _folds(card: ModelCard) -> str:
    if not card.fold_metrics:
        return ""
    names = list(card.fold_metrics[0].headline())
    rows = [
        (str(number), *(f"{value:.4f}" for value in fold.headline().values()), f"{fold.images:,}")
        for number, fold in enumerate(card.fold_metrics, 1)
    ]
    summary = card.fold_summary()
    rows.append(("mean", *(f"{mean:.4f}" for mean, _ in summary.values()), ""))
    rows.append(("spread", *(f"{spread:.4f}" for _, spread in summary.values()), ""))
    columns = ("fold", *(_NAMES.get(name, name) for name in names), "images")
    note = (
        f"<p>{card.folds_told}, each by a model of its own that was not trained on that part.</p>"
    )
    return "<h2>Folds</h2>" + note + table(columns, rows)


def _curve(card: ModelCard) -> str:
    if not card.learning_curve:
        return ""
    names = list(card.learning_curve[0].test)
    rows = [
        (
            f"{point.images:,}",
            *(f"{part.get(n, math.nan):.4f}" for n in names for part in (point.train, point.test)),
        )
        for point in card.learning_curve
    ]
    columns = [f"{_NAMES.get(n, n)}, {part}" for n in names for part in ("train", "test")]
    return "<h2>Learning curve</h2>" + table(("training images", *columns), rows)


def _mistakes(folder: Path, card: ModelCard) -> str:
    path = folder / REPORT_DIR / MISTAKES_FILE
    if not path.is_file():
        return ""
    try:
        found = Mistakes.model_validate_json(path.read_bytes()).mistakes
        pictures = [data_url((path.parent / one.file).read_bytes(), "jpeg") for one in found]
    except (OSError, ValidationError) as err:
        raise BadModel(f"The report of {card.tag} is damaged: {path.name}: {err}") from err
    if not found:
        return "<h2>Worst mistakes</h2><p>There are none.</p>"
    shown = "".join(
        f'<figure><img alt="" src="{picture}"><figcaption><b>{text(one.answer)}</b>'
        + ("" if one.probability is None else f" {one.probability:.2f}")
        + f"<br>is {text(one.truth)}<br><small>{text(one.image)}</small>"
        "</figcaption></figure>"
        for one, picture in zip(found, pictures, strict=True)
    )
    return f"<h2>Worst mistakes</h2><div class=gallery>{shown}</div>"


def _facts(card: ModelCard) -> str:
    size = card.preprocessing
    facts = [
        ("task", card.task),
        ("classes", ", ".join(card.labels)),
        ("target", card.target),
        ("range", card.output_range and "{:g} to {:g}".format(*card.output_range)),
        ("interval", card.interval and f"score +- {card.interval.half_width:.4g}, made to hold "
         f"{card.interval.coverage:.0%} of the truth"),
        ("temperature", f"{card.temperature:.3f}" if card.temperature != 1 else None),
        ("abstains below", card.abstain_below),
        ("threshold", card.threshold),
        ("input", f"{size.width} x {size.height} px, {size.resize}"),
        ("splits", ", ".join(f"{k} {v:,}" for k, v in card.dataset.splits.items())),
        ("duration", f"{card.duration_seconds:,.0f} s"),
        ("graph", f"sha256 {card.graph_sha256}, parity {card.parity:.2g}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in card.versions.items())),
    ]  # fmt: skip
    rows = [(name, str(value)) for name, value in facts if value not in (None, "")]
    recipe = html.escape(json.dumps(card.recipe, indent=2, ensure_ascii=False))
    return "<h2>Model</h2>" + table((), rows, "facts") + f"<h2>Recipe</h2><pre>{recipe}</pre>"
