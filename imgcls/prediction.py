"""Prediction: a row of the graph's answers, read by the model's card, as people get it."""

import math
from typing import Any

from imgcls.card import ModelCard
from imgcls.engine import Floats
from imgcls.errors import BadModel


def render(
    card: ModelCard, row: Floats, *, top_k: int | None = None, threshold: float | None = None
) -> dict[str, Any]:
    """A `Prediction` from one image's probabilities `float32 [C]`, or its score `float32 []`.

    Raises `BadModel` for what is not a number.
    """
    if card.task == "regression":
        return score(card, float(row))
    values = row.tolist()
    if not math.isfinite(sum(values)):
        raise no_number(card)
    # Sorting a few numbers is quicker without NumPy; equal ones keep their order.
    shown = sorted(range(len(values)), key=values.__getitem__, reverse=True)
    limit = card.threshold if threshold is None else threshold
    verdict = shown[0] if limit is None else int(row[1] >= limit)  # as `verdicts` says of many
    answer: dict[str, Any] = {
        "label": card.labels[verdict],
        "probability": round(values[verdict], 6),
        "probabilities": {card.labels[i]: round(values[i], 6) for i in shown[:top_k]},
    }
    if card.abstain_below is not None:
        answer["abstained"] = values[verdict] < card.abstain_below
    return answer


def score(card: ModelCard, value: float) -> dict[str, Any]:
    """`score`, and `interval` where the card has one: neither leaves the card's range.

    Seven digits, which is what a `float32` holds. Raises `BadModel` for what is not a number.
    """
    if not math.isfinite(value):
        raise no_number(card)
    found: dict[str, Any] = {"score": _within(card, value)}
    if card.interval is not None:
        half = card.interval.half_width
        found["interval"] = (_within(card, value - half), _within(card, value + half))
    return found


def no_number(card: ModelCard) -> BadModel:
    """For what no JSON can say, and nobody could use."""
    return BadModel(
        f"{card.tag} gives no number for this image; take another model, or train it again."
    )


def _within(card: ModelCard, value: float) -> float:
    shown = float(f"{value:.7g}")
    if card.output_range is None:
        return shown
    low, high = card.output_range
    return min(max(shown, low), high)
