"""Writes `report/`: the plots of a model and its worst mistakes, for `imgcls.report` to show."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from imgcls import images
from imgcls.card import Metrics, ModelCard, Preprocessing
from imgcls.engine import verdicts
from imgcls.report import MISTAKES_FILE, REPORT_DIR, Mistake, Mistakes
from training import plots
from training.evaluate import confidence
from training.fitted import Floats
from training.judge import Judge
from training.loader import Source

MOST_MISTAKES = 24
_SHOWN = Preprocessing(height=160, width=160, resize="pad")


def write_report(
    folder: Path,
    card: ModelCard,
    judge: Judge,
    source: Source,
    rows: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int64] | Floats,
    answers: Floats,
) -> None:
    """Draw what the model in `folder` answered to the test images `rows`."""
    target = folder / REPORT_DIR
    target.mkdir()
    with matplotlib.rc_context(plots.RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a label in a script that the font lacks
        for name, figure in _figures(card, judge, targets, answers):
            figure.savefig(target / f"{name}.png")
        found = _mistakes(card, judge, source, rows, targets, answers)
        pictures = [images.load(source.read(row), _SHOWN) for row, _ in found]
        for (_, one), picture in zip(found, pictures, strict=True):
            Image.fromarray(picture).save(target / one.file, quality=85)
        if found:
            captions = [f"{plots.short(m.answer)}\nis {plots.short(m.truth)}" for _, m in found]
            plots.mistakes(pictures, captions).savefig(target / "mistakes.png")
    listed = Mistakes(mistakes=[one for _, one in found])
    (target / MISTAKES_FILE).write_text(listed.model_dump_json(indent=2))


def _figures(
    card: ModelCard, judge: Judge, targets: npt.NDArray[np.int64] | Floats, answers: Floats
) -> Iterator[tuple[str, Figure]]:
    if isinstance(card.metrics, Metrics):
        correct = verdicts(answers, judge.threshold) == targets
        yield "confusion", plots.confusion(card.metrics)
        yield "classes", plots.classes(card.metrics)
        yield "reliability", plots.reliability(confidence(answers, judge.threshold), correct)
        yield "roc", plots.roc(judge.labels, targets.astype(np.int64), answers)
    elif judge.interval is not None:
        name, scores = card.target or "score", targets.astype(np.float32)
        yield "predictions", plots.predictions(scores, answers, name, judge.interval)
        yield "errors", plots.errors(scores, answers, name, judge.median)
    if (figure := plots.history(card.history)) is not None:
        yield "history", figure
    if card.learning_curve:
        yield "learning_curve", plots.learning_curve(card.learning_curve)


def _mistakes(
    card: ModelCard,
    judge: Judge,
    source: Source,
    rows: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int64] | Floats,
    answers: Floats,
) -> list[tuple[int, Mistake]]:
    """The test images on which the model is surest of a wrong verdict, or errs by most."""
    if judge.labels:
        predicted = verdicts(answers, judge.threshold)
        badness = np.where(predicted == targets, -1.0, confidence(answers, judge.threshold))
    else:
        badness = np.abs(answers - targets).astype(np.float64)
    worst = [at for at in np.argsort(-badness, kind="stable")[:MOST_MISTAKES] if badness[at] > 0]
    found = []
    for number, at in enumerate(worst):
        if judge.labels:
            truth, answer = judge.labels[int(targets[at])], judge.labels[predicted[at]]
        else:
            truth, answer = f"{targets[at]:.3g}", f"{answers[at]:.3g}"
        one = Mistake(
            file=f"{number:02d}.jpg",
            image=source.name(int(rows[at])),
            truth=truth,
            answer=answer,
            probability=round(float(badness[at]), 4) if judge.labels else None,
        )
        found.append((int(rows[at]), one))
    return found
