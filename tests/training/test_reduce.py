"""PCA keeps what it is asked to keep, and its graph gives what its formula gives."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from imgcls.errors import BadRecipe
from imgcls.recipes.types import Pca
from training import graphs
from training.reduce import fit_pca


def features(count: int = 300, width: int = 20) -> np.ndarray:
    """Features of any scale, off centre, that five things decide; one never changes."""
    draw = np.random.default_rng(0)
    hidden = draw.normal(size=(count, 5)) @ draw.normal(size=(5, width))
    found = hidden + 0.1 * draw.normal(size=(count, width))
    found *= 10.0 ** draw.integers(-3, 3, width)
    found[:, 0] = 3.0
    return (found + 5).astype(np.float32)


def test_components_are_those_of_standardised_features() -> None:
    given = features()
    found = fit_pca(given, Pca(components=4))
    deviation = given.std(0, dtype=np.float64)
    deviation[0] = 1
    scaled = (given - given.mean(0, dtype=np.float64)) / deviation
    expected = PCA(4).fit_transform(scaled)
    got = graphs.runner(found.graph)(given)
    assert got.shape == (300, 4)
    signs = np.sign((got * expected).sum(0))
    assert np.abs(got * signs - expected).max() < 1e-2
    assert np.abs(given @ found.weight + found.bias - got).max() < 1e-2


def test_as_many_components_are_kept_as_the_variance_asks_for() -> None:
    given = features()
    few, more = (len(fit_pca(given, Pca(variance=share)).bias) for share in (0.5, 0.95))
    assert 1 <= few < more <= 5


def test_more_features_than_images_are_reduced_too() -> None:
    wide = features(50, 2500)
    assert 2 <= len(fit_pca(wide, Pca(variance=0.9)).bias) <= 5


def test_more_components_than_there_are_is_refused() -> None:
    with pytest.raises(BadRecipe, match=r"reduce\.components is 21"):
        fit_pca(features(), Pca(components=21))
