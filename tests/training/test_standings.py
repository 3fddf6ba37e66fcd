"""Intervals of trials: they hold what they promise, and chance is not taken for a difference."""

import numpy as np
import pytest

from training.standings import behind_best, interval, scores


def test_scores_are_right_verdicts_or_errors() -> None:
    probabilities = np.array([[0.9, 0.1], [0.45, 0.55], [0.3, 0.7]], np.float32)
    truth = np.array([0, 0, 1])
    assert scores(probabilities, truth).tolist() == [1, 0, 1]
    assert scores(probabilities, truth, threshold=0.6).tolist() == [1, 1, 1]
    errors = scores(np.array([1.0, 5.0], np.float32), np.array([2.0, 5.0], np.float32))
    assert errors.tolist() == [-1, 0]


def test_all_right_on_few_images_is_no_certainty() -> None:
    low, high = interval(np.ones(20), share=True)
    assert low < 0.9
    assert high == 1
    low, high = interval(-np.abs(np.random.default_rng(0).normal(size=300)), share=False)
    assert -0.95 < low < -0.8 < high < -0.65


def test_trials_that_answer_alike_are_noise_and_a_clearly_worse_one_is_not() -> None:
    draw = np.random.default_rng(0)
    good = (draw.random(400) < 0.8).astype(np.float64)
    nearly = good.copy()
    nearly[:3] = 0
    bad = (draw.random(400) < 0.5).astype(np.float64)
    own, alike, near, worse = behind_best([good, good, nearly, bad], share=True)
    assert own == (0, 0)
    assert alike[0] < 0 < alike[1]
    assert near[0] < 0 < near[1]
    assert 0.15 < worse[0] < worse[1] < 0.45


@pytest.mark.parametrize("share", [True, False])
def test_among_equals_the_luckiest_is_seldom_called_better(share: bool) -> None:
    """Ten models of the same worth: a difference may be claimed in 5% of the searches."""
    draw = np.random.default_rng(1)
    claims = 0
    for _ in range(30):
        level = draw.normal(size=300)  # images are easy or hard for all of them
        errors = np.abs(level + draw.normal(size=(10, 300)))
        found = (errors < 1).astype(np.float64) if share else -errors
        ranked = found[np.argsort(-found.mean(1))]
        claims += any(low > 0 for low, _ in behind_best(list(ranked), share=share))
    assert claims <= 5


def test_one_trial_is_behind_nothing() -> None:
    assert behind_best([np.ones(5)], share=True) == [(0, 0)]
