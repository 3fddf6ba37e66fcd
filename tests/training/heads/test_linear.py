"""The linear head is logistic regression, and ridge regression for numbers."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from imgcls.recipes.types import LinearHead
from training import heads
from training.heads.linear import fit_head


@pytest.mark.parametrize("strength", [0.01, 1.0])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_the_linear_head_finds_what_logistic_regression_finds(strength: float, head: str) -> None:
    noise = np.random.default_rng(0)
    features = noise.normal(size=(400, 6)).astype(np.float32)
    targets = (features @ noise.normal(size=6) + noise.normal(size=400) > 0).astype(np.int64)
    # Of any scale, off centre, and one that never changes.
    features = features * np.array([1, 100, 0.01, 1, 1, 0], np.float32) + 3
    scaled = (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)
    # Two softmax outputs share the weight that one neuron carries, at half the penalty.
    C = strength * 2 if head == "softmax" else strength  # noqa: N806
    expected = LogisticRegression(C=C, tol=1e-8).fit(scaled, targets).predict_proba(scaled)
    # One epoch over 600 copies: no earlier epoch to choose, and the same sum of losses.
    copies = np.tile(features, (600, 1)), np.tile(targets, 600)
    recipe = LinearHead(activation=head, C=strength / 600, epochs=1, batch_size=1200, lr=0.1)
    fitted = fit_head(copies, (features, targets), recipe, classes=2)
    with torch.inference_mode():
        logits = fitted.head(torch.from_numpy(features))
    got = torch.sigmoid(logits[:, 0] if head == "sigmoid" else logits[:, 1] - logits[:, 0])
    assert np.abs(got.numpy() - expected[:, 1]).max() < 0.03


def test_numbers_are_found_by_ridge_regression() -> None:
    draw = np.random.default_rng(0)
    features = (draw.normal(size=(200, 8)) * 10.0 ** draw.integers(-2, 3, 8)).astype(np.float32)
    targets = (draw.normal(size=200) + features[:, 0]).astype(np.float32)
    problem = heads.Problem((features, targets), (features, targets), None)
    found = heads.fit(LinearHead(C=0.01), problem, output_range=(-1e6, 1e6)).answer(features)
    scaled = (features - features.mean(0)) / features.std(0)
    expected = Ridge(100).fit(scaled, targets).predict(scaled)
    assert np.abs(found - expected).max() < 1e-3 * np.ptp(expected)
