"""Dense SIFT: what a descriptor says of plain edges, and words that count descriptors."""

import numpy as np
import pytest
import torch

from imgcls.errors import BadRecipe
from imgcls.recipes.types import DenseSiftFeatures
from training.features.dense_sift import DenseSift, Descriptors, find_words


def wedge(turn: int) -> torch.Tensor:
    """A ramp from dark to light across the image, turned by quarters: `uint8 [1, 16, 16, 3]`."""
    ramp = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))
    pixels = np.rot90(ramp, turn)
    return torch.from_numpy(np.stack([pixels] * 3, -1)[None].copy())


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_a_descriptor_names_the_direction_in_which_it_becomes_lighter(turn: int) -> None:
    found = Descriptors(DenseSiftFeatures(), 16)(wedge(turn))
    assert found.shape == (1, 1, 128)
    by_direction = found.view(16, 8).sum(0)
    # Directions go from right to down; rot90 turns the other way.
    assert int(by_direction.argmax()) == (0, 6, 4, 2)[turn]
    assert by_direction.max() > 0.9 * by_direction.sum()
    assert float(found.square().sum()) == pytest.approx(1, abs=1e-5)


def test_light_makes_no_difference_and_a_flat_image_has_no_direction() -> None:
    descriptors = Descriptors(DenseSiftFeatures(step=2), 24)
    noise = np.random.default_rng(0).integers(0, 100, (2, 24, 24, 1), dtype=np.uint8)
    photo = torch.from_numpy(np.repeat(noise, 3, 3))
    found = descriptors(photo)
    assert found.shape == (2, 25, 128)
    assert torch.allclose(descriptors(2 * photo + 50), found, atol=1e-5)
    assert not descriptors(torch.full((1, 24, 24, 3), 255, dtype=torch.uint8)).any()


def test_words_count_the_descriptors_that_are_nearest_to_them() -> None:
    descriptors = Descriptors(DenseSiftFeatures(), 16).eval()
    seen = torch.cat([wedge(turn) for turn in range(4)])
    each = descriptors(seen).flatten(0, 1).numpy()
    words = find_words(np.repeat(each, 10, 0), 4, seed=0)
    shares = DenseSift(descriptors, words)(seen)
    assert sorted(shares.argmax(1).tolist()) == [0, 1, 2, 3]  # a word for each direction
    assert torch.equal(shares.square().sum(1), torch.ones(4))


def test_too_small_an_image_and_too_many_words_are_refused() -> None:
    with pytest.raises(BadRecipe, match=r"features\.cell"):
        Descriptors(DenseSiftFeatures(), 15)
    with pytest.raises(BadRecipe, match=r"features\.words"):
        find_words(np.zeros((5, 128), np.float32), 6, seed=0)
