"""A row of a graph's answers as people get it: verdicts, abstentions, scores within their range."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgcls.card import Interval, ModelCard
from imgcls.errors import BadModel
from imgcls.prediction import render
from imgcls.registry import Registry
from imgcls.schemas import Prediction
from tests.fakes import tiny_model, tiny_regression

ROW = np.array([0.2, 0.5, 0.3], np.float32)


@pytest.fixture
def classes(registry: Registry, tmp_path: Path) -> ModelCard:
    return registry.get(tiny_model(tmp_path / "c", registry))


@pytest.fixture
def scores(registry: Registry, tmp_path: Path) -> ModelCard:
    return registry.get(tiny_regression(tmp_path / "r", registry))


def test_without_a_threshold_nothing_is_said_of_abstaining(classes: ModelCard) -> None:
    assert render(classes, ROW) == {
        "label": "green",
        "probability": 0.5,
        "probabilities": {"green": 0.5, "blue": 0.3, "red": 0.2},
    }


@pytest.mark.parametrize(("below", "abstained"), [(0.5, False), (0.500001, True), (0.0, False)])
def test_an_abstention_keeps_the_probabilities(
    classes: ModelCard, below: float, abstained: bool
) -> None:
    plain = render(classes, ROW)
    careful = classes.model_copy(update={"abstain_below": below})
    assert render(careful, ROW) == plain | {"abstained": abstained}
    assert render(careful, ROW, top_k=1)["abstained"] is abstained


def test_it_is_the_verdicts_probability_that_decides_on_abstaining(classes: ModelCard) -> None:
    two = classes.model_copy(
        update={"labels": ["no", "yes"], "threshold": 0.3, "abstain_below": 0.5}
    )
    row = np.array([0.6, 0.4], np.float32)
    assert render(two, row) == {
        "label": "yes",
        "probability": 0.4,
        "probabilities": {"no": 0.6, "yes": 0.4},
        "abstained": True,
    }
    assert render(two, row, threshold=0.5)["abstained"] is False


@pytest.mark.parametrize(
    ("value", "score", "interval"),
    [
        (7.3, 7.3, (6.1, 8.5)),
        (0.25, 0.25, (0.0, 1.45)),
        (9.9, 9.9, (8.7, 10.0)),
        (10.0, 10.0, (8.8, 10.0)),
        (0.1 + 0.2, 0.3, (0.0, 1.5)),
    ],
)
def test_a_score_has_seven_digits_and_an_interval_within_the_range(
    scores: ModelCard, value: float, score: float, interval: tuple[float, float]
) -> None:
    answer = render(scores, np.float32(value))
    assert answer == {"score": score, "interval": interval}
    assert Prediction.model_validate(answer).interval == interval


def test_a_card_without_interval_or_range_gives_the_bare_score(scores: ModelCard) -> None:
    bare = scores.model_copy(update={"interval": None, "output_range": None})
    assert render(bare, np.float32(-123456.7)) == {"score": -123456.7}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_no_answer(
    classes: ModelCard, scores: ModelCard, value: float
) -> None:
    with pytest.raises(BadModel, match="no number"):
        render(scores, np.float32(value))
    with pytest.raises(BadModel, match="no number"):
        render(classes, np.array([0.5, value, 0.5], np.float32))


@given(
    value=st.floats(-1e6, 1e6, width=32),
    ends=st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).map(sorted),
    half=st.floats(0, 1e7),
)
def test_nothing_leaves_the_range_whatever_the_graph_says(
    value: float, ends: list[float], half: float
) -> None:
    card = ModelCard.model_construct(
        task="regression",
        output_range=(ends[0], ends[1]),
        interval=Interval(coverage=0.9, half_width=half),
    )
    answer = render(card, np.float32(value))
    low, high = answer["interval"]
    assert ends[0] <= low <= answer["score"] <= high <= ends[1]
