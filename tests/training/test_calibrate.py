"""Calibration on validation images: the temperature in the graph, abstentions, intervals."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.fakes import tiny_graph
from training.calibrate import (
    abstain_threshold,
    conformal_half_width,
    fit_temperature,
    scale_graph,
    scaled,
)
from training.evaluate import calibration_error, confidence, log_loss
from training.export import Graph, compare


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def drawn(
    count: int, sharper: float, seed: int = 0, spread: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """Targets drawn from logits, and the probabilities of those logits times `sharper`."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, spread, (count, 5))
    chances = softmax(logits).astype(np.float64)
    targets = (chances.cumsum(1) < draw.random((count, 1)) * chances.sum(1, keepdims=True)).sum(1)
    return targets.clip(0, 4), softmax(logits * sharper)


@pytest.mark.parametrize("sharper", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_the_answers_too_sure_or_unsure(sharper: float) -> None:
    targets, probabilities = drawn(3000, sharper)
    temperature = fit_temperature(probabilities, targets)
    assert temperature == pytest.approx(sharper, rel=0.1)
    others, unseen = drawn(3000, sharper, seed=1)
    after = scaled(unseen, temperature)
    assert log_loss(after, others) <= log_loss(unseen, others) + 1e-3
    sure = confidence(after, None)
    assert calibration_error(sure, after.argmax(1) == others) < 0.03
    assert (after.argmax(1) == unseen.argmax(1)).all()


def test_a_few_images_that_are_all_right_do_not_make_a_model_certain() -> None:
    probabilities = np.array([[0.7, 0.3]] * 6, np.float32)
    temperature = fit_temperature(probabilities, np.zeros(6, np.int64))
    assert scaled(probabilities, temperature)[0, 0] == pytest.approx(7 / 8, abs=1e-3)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_scaled_graph_answers_as_the_scaled_source(temperature: float, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    tiny_graph(path, 16, (0.0, 0.0, 0.0, 1.0))
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (9, 1, 1, 3)) + np.zeros((9, 16, 16, 3), np.int64)
    pixels = pixels.astype(np.uint8)
    source, embedding = Graph(path).run(pixels)
    assert source.min() < 1e-5  # some probabilities are next to nothing
    scale_graph(path, temperature)
    onnx.checker.check_model(str(path), full_check=True)
    answers, same = Graph(path).run(pixels)
    assert [o.name for o in onnx.load(path).graph.output] == ["probabilities", "embedding"]
    assert compare(answers, scaled(source, temperature)) < 1e-5
    assert np.array_equal(same, embedding)


def test_what_a_model_answers_beyond_its_abstentions_is_wrong_as_seldom_as_was_asked() -> None:
    targets, probabilities = drawn(2000, 1.0, spread=3.0)
    cut = abstain_threshold(probabilities, targets, 0.1)
    answered = confidence(probabilities, None) >= cut
    wrong = probabilities.argmax(1) != targets
    assert wrong.mean() > 0.2
    assert wrong[answered].mean() <= 0.1
    assert answered.mean() > 0.2
    # One more answer would have been one too many: the next wrong one passes the limit.
    assert abstain_threshold(probabilities, targets, 0.12) < cut


def test_nobody_abstains_where_all_may_be_answered_and_all_do_where_none_may() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], np.float32)
    assert abstain_threshold(probabilities, np.array([0, 0, 0]), 0.0) == 0.0
    assert abstain_threshold(probabilities, np.array([1, 1, 1]), 0.2) == 1.0
    assert abstain_threshold(probabilities, np.array([0, 0, 1]), 0.0) == pytest.approx(0.7)
    equal = np.array([[0.9, 0.1], [0.9, 0.1]], np.float32)
    assert abstain_threshold(equal, np.array([0, 1]), 0.0) == 1.0


def test_conformal_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draw = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        half_width = conformal_half_width(draw.standard_t(3, 99).astype(np.float32), 0.9)
        shares.append((np.abs(draw.standard_t(3, 500)) <= half_width).mean())
    assert np.mean(shares) == pytest.approx(0.9, abs=0.01)
    assert conformal_half_width(np.array([-3.0, 1.0], np.float32), 0.9) == 3.0
