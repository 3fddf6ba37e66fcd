"""Features of a dataset: equal to their module's, read back from the cache, computed again where
that is damaged.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from imgcls.card import Preprocessing
from imgcls.data import Dataset
from imgcls.recipes.types import (
    BackboneFeatures,
    DenseSiftFeatures,
    Features,
    HogFeatures,
    PixelFeatures,
)
from tests.fakes import left_behind
from training.features import features, load_extractor
from training.loader import load_pixels

KINDS: list[Features] = [
    BackboneFeatures(name="squeezenet1_1", weights="none"),
    HogFeatures(),
    DenseSiftFeatures(words=8),
    PixelFeatures(),
]
PREPROCESSING = Preprocessing(height=32, width=32)

Compute = Callable[[], tuple[np.ndarray, bool]]


@pytest.fixture
def compute(dataset: Dataset) -> Compute:
    """The features of the test images, and whether they were computed."""
    extractor = load_extractor(PixelFeatures(), dataset, dataset.rows("train"), PREPROCESSING)

    def run() -> tuple[np.ndarray, bool]:
        shares: list[float] = []
        found = features(extractor, dataset, dataset.rows("test"), progress=shares.append)
        return np.array(found), len(shares) > 1

    return run


@pytest.mark.parametrize("wanted", KINDS, ids=lambda wanted: wanted.kind)
def test_every_kind_of_features_is_that_of_its_torch_module(
    wanted: Features, dataset: Dataset
) -> None:
    train, rows = dataset.rows("train"), dataset.rows("test")
    extractor = load_extractor(wanted, dataset, train, PREPROCESSING)
    found = features(extractor, dataset, rows)
    assert found.shape == (len(rows), extractor.dim)
    with torch.inference_mode():
        pixels = torch.from_numpy(load_pixels(dataset, rows, PREPROCESSING))
        expected = extractor.module(pixels).numpy()
    assert np.abs(found - expected).max() < 1e-4
    assert np.ptp(found, axis=0).max() > 0.1  # images differ


def test_features_are_computed_once(compute: Compute) -> None:
    first, ran = compute()
    assert ran
    second, ran = compute()
    assert not ran
    assert np.array_equal(first, second)


def test_visual_words_are_found_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> list[object]:
        wanted = DenseSiftFeatures(words=8)
        return load_extractor(wanted, dataset, dataset.rows("train"), PREPROCESSING).identity

    first = load()
    monkeypatch.setattr("training.features.extractors.find_words", None)
    assert load() == first


def test_settings_of_features_are_told_apart(dataset: Dataset) -> None:
    rows = dataset.rows("test")
    for wanted in (HogFeatures(), HogFeatures(channels="grey"), PixelFeatures()):
        extractor = load_extractor(wanted, dataset, rows, PREPROCESSING)
        again = load_extractor(wanted, dataset, rows, PREPROCESSING)
        first = np.array(features(extractor, dataset, rows))
        assert np.array_equal(features(again, dataset, rows), first)
        assert not np.array_equal(features(extractor, dataset, rows[::-1]), first)
    strongest = load_extractor(HogFeatures(), dataset, rows, PREPROCESSING)
    grey = load_extractor(HogFeatures(channels="grey"), dataset, rows, PREPROCESSING)
    assert not np.array_equal(features(strongest, dataset, rows), features(grey, dataset, rows))


@pytest.mark.parametrize("keep", [0, 5, 40, 500, -1])
def test_a_cache_file_that_was_cut_is_computed_again(
    compute: Compute, home: Path, keep: int
) -> None:
    whole, _ = compute()
    left = left_behind(home / "cache" / "features", ".tmp-")
    (cached,) = (home / "cache" / "features").glob("*.npy")
    cached.write_bytes(cached.read_bytes()[:keep])
    again, ran = compute()
    assert ran
    assert np.allclose(again, whole, atol=1e-6)
    assert not compute()[1]
    assert not left.exists()
