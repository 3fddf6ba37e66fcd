"""Figures of answers: equal to the libraries' own, with intervals that hold what they claim."""

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score, root_mean_squared_error

from imgcls.card import Interval
from training.evaluate import calibration_error, measure, measure_scores
from training.resample import MidRanks, intervals

LABELS = ["a", "b", "c", "d"]


def answers(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities with many ties, right more often than not."""
    draw = np.random.default_rng(seed)
    targets = draw.integers(0, 4, count)
    logits = draw.normal(size=(count, 4)).round(1)
    logits[np.arange(count), targets] += 1.0
    powers = np.exp(logits)
    return targets, (powers / powers.sum(1, keepdims=True)).astype(np.float32).round(2)


def test_roc_auc_is_that_of_scikit_learn_ties_included() -> None:
    targets, probabilities = answers(300)
    each = [roc_auc_score(targets == c, probabilities[:, c]) for c in range(4)]
    found = measure(LABELS, targets, probabilities, resamples=0)
    assert found.roc_auc == pytest.approx(np.mean(each), abs=1e-12)
    two = probabilities[:, :2]
    binary = (targets == 1).astype(np.int64)
    found = measure(LABELS[:2], binary, two, resamples=0)
    assert found.roc_auc == pytest.approx(roc_auc_score(binary, two[:, 1]), abs=1e-12)


def test_a_split_of_one_class_has_no_roc_auc_and_can_be_measured_all_the_same() -> None:
    found = measure(LABELS, np.zeros(3, np.int64), np.full((3, 4), 0.25, np.float32))
    assert found.roc_auc is None
    assert "roc_auc" not in found.intervals
    assert found.accuracy == 1.0


def test_mid_ranks_are_those_of_scipy_and_whole_weights_are_copies() -> None:
    values = np.array([3.0, 1.0, 1.0, 2.0, 3.0, 3.0])[:, None]
    plain = MidRanks(values).of(np.ones((6, 1)))[:, 0]
    assert plain.tolist() == (rankdata(values[:, 0]) - 0.5).tolist()
    weights = np.array([1, 2, 0, 1, 3, 1])
    weighted = MidRanks(values).of(weights[:, None].astype(float))[:, 0]
    copies = rankdata(np.repeat(values[:, 0], weights)) - 0.5
    assert np.repeat(weighted, weights).tolist() == copies.tolist()


def test_intervals_hold_the_true_accuracy_about_as_often_as_they_say() -> None:
    draw = np.random.default_rng(1)
    held, widths = 0, []
    for _ in range(60):
        right = draw.random(200) < 0.8
        low, high = intervals(
            lambda w, right=right: {"accuracy": float(w @ right / w.sum())}, 200, resamples=300
        )["accuracy"]
        held += low <= 0.8 <= high
        widths.append(high - low)
    assert held >= 52
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 200), rel=0.1)


def test_the_intervals_of_a_split_surround_its_figures_and_are_the_same_each_time() -> None:
    targets, probabilities = answers(200)
    found = measure(LABELS, targets, probabilities, resamples=200)
    assert set(found.intervals) == {"accuracy", "macro_f1", "log_loss", "roc_auc"}
    for name, (low, high) in found.intervals.items():
        assert low < getattr(found, name) < high
    assert measure(LABELS, targets, probabilities, resamples=200) == found


def test_the_calibration_error_is_the_distance_of_what_is_said_and_what_is_right() -> None:
    said = np.array([0.9] * 10 + [0.6] * 10)
    right = np.array([True] * 7 + [False] * 3 + [True] * 6 + [False] * 4)
    assert calibration_error(said, right) == pytest.approx(0.5 * 0.2 + 0.5 * 0.0)
    assert calibration_error(np.array([1.0]), np.array([True])) == 0.0


def test_abstentions_leave_the_answers_that_are_sure() -> None:
    targets = np.array([0, 0, 1, 1])
    sure = np.array([0.9, 0.4, 0.2, 0.45], np.float32)
    probabilities = np.stack([sure, 1 - sure], 1)  # verdicts 0 1 1 1, by 0.9 0.6 0.8 0.55
    found = measure(["n", "y"], targets, probabilities, abstain_below=0.58, resamples=0)
    assert (found.answered, found.answered_accuracy) == (0.75, pytest.approx(2 / 3))
    none = measure(["n", "y"], targets, probabilities, abstain_below=1.0, resamples=0)
    assert (none.answered, none.answered_accuracy) == (0.0, None)


def test_figures_of_scores_are_those_of_the_libraries() -> None:
    draw = np.random.default_rng(0)
    targets = draw.normal(5, 2, 300).round(1).astype(np.float32)
    scores = (targets + draw.normal(0, 1, 300)).round(1).astype(np.float32)
    interval = Interval(coverage=0.9, half_width=1.0)
    found = measure_scores(targets, scores, median=5.0, interval=interval, resamples=100)
    assert found.mae == pytest.approx(mean_absolute_error(targets, scores), rel=1e-6)
    assert found.rmse == pytest.approx(root_mean_squared_error(targets, scores), rel=1e-6)
    assert found.r2 == pytest.approx(r2_score(targets, scores), rel=1e-6)
    assert found.spearman == pytest.approx(spearmanr(targets, scores).statistic, rel=1e-6)
    assert found.mae_of_median == pytest.approx(np.abs(targets - 5).mean(), rel=1e-6)
    assert found.coverage == pytest.approx((np.abs(targets - scores) <= 1).mean())
    assert all(low < getattr(found, name) < high for name, (low, high) in found.intervals.items())


def test_scores_that_never_change_have_no_rank_correlation() -> None:
    flat = np.full(5, 2.0, np.float32)
    interval = Interval(coverage=0.9, half_width=0.0)
    found = measure_scores(flat, flat, median=2.0, interval=interval, resamples=10)
    assert (found.spearman, found.r2, found.mae, found.coverage) == (0.0, 0.0, 0.0, 1.0)
