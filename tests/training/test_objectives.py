"""Losses: rare classes and rare targets count, whatever scale the targets have."""

import numpy as np
import pytest
import torch

from training.objectives import DensityWeights, Regression, class_weights, middle_and_spread


def test_rare_classes_weigh_more_and_all_classes_weigh_the_same_together() -> None:
    targets = np.array([0] * 30 + [1] * 10)
    weights = class_weights(targets, 3)
    assert weights.tolist() == pytest.approx([40 / 90, 40 / 30, 1.0])
    assert weights[0] * 30 == pytest.approx(weights[1] * 10)


def test_targets_weigh_by_the_inverse_of_the_density_around_them() -> None:
    draw_from = np.random.default_rng(0)
    crowded = draw_from.uniform(4, 6, 900)
    sparse = draw_from.uniform(0, 10, 100)
    targets = np.concatenate((crowded, sparse, [0.0, 10.0])).astype(np.float32)
    weights = DensityWeights(targets)
    of_all = weights(torch.from_numpy(targets))
    assert of_all.mean().item() == pytest.approx(1, abs=1e-4)
    # Inside, every unit of the range counts about the same, though one has 50 times the images.
    inside = of_all[(targets > 4.2) & (targets < 5.8)]
    outside = of_all[(targets > 6.5) & (targets < 9.5)]
    assert 20 < (outside.mean() / inside.mean()).item() < 80
    assert of_all.max() < 12
    # Neighbours stand in for each other: no image of the crowd weighs much more than the next.
    assert inside.max() / inside.min() < 2


def test_targets_that_lie_evenly_all_weigh_the_same() -> None:
    targets = np.linspace(2, 3, 5000, dtype=np.float32)
    weights = DensityWeights(targets)(torch.linspace(2.1, 2.9, 50))
    assert weights.max() / weights.min() < 1.1
    same = np.full(5, 7, np.float32)
    assert DensityWeights(same)(torch.from_numpy(same)).tolist() == pytest.approx([1] * 5)


def test_the_squared_error_does_not_depend_on_the_unit_of_the_target() -> None:
    targets = torch.tensor([1.0, 2.0, 3.0, 6.0])
    logits = torch.tensor([[0.1], [0.2], [-0.3], [0.4]])
    losses = []
    for unit in (1.0, 1000.0):
        middle, spread = middle_and_spread((targets * unit).numpy())
        objective = Regression(middle, spread)
        losses.append(objective.loss(logits, targets * unit).item())
        figures = objective.figures(logits, targets * unit)
        assert figures["loss"] / 4 == pytest.approx(losses[-1], rel=1e-5)
        answers = logits[:, 0] * spread + middle
        error = (answers - targets * unit).abs().sum().item()
        assert figures["mae"] == pytest.approx(error, rel=1e-5)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert middle_and_spread(np.full(3, 5, np.float32)) == (5.0, 1.0)
