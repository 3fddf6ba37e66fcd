"""The cache of features: read back as it was computed, and computed again where it is damaged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imgcls.card import Preprocessing
from imgcls.data import Dataset
from tests.fakes import left_behind
from training.backbones import load_backbone
from training.features import features

Compute = Callable[[], tuple[np.ndarray, bool]]


@pytest.fixture
def compute(dataset: Dataset) -> Compute:
    """The features of the test images, and whether the backbone ran for them."""
    backbone = load_backbone("squeezenet1_1", "none", image_size=32)
    preprocessing = Preprocessing(height=32, width=32)

    def run() -> tuple[np.ndarray, bool]:
        shares: list[float] = []
        rows = dataset.rows("test")
        found = features(backbone, dataset, rows, preprocessing, progress=shares.append)
        return np.array(found), len(shares) > 1

    return run


def test_features_are_computed_once(compute: Compute) -> None:
    first, ran = compute()
    assert ran
    second, ran = compute()
    assert not ran
    assert np.array_equal(first, second)


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
