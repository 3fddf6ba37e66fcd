"""HOG is scikit-image's, on photos; its graph answers as the module does."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.feature import hog as scikit_hog

from imgcls import images
from imgcls.card import Preprocessing
from imgcls.data import open_dataset
from imgcls.errors import BadRecipe
from imgcls.recipes.types import HogFeatures
from training import graphs
from training.export import module_graph
from training.features.hog import Hog


@pytest.fixture(scope="module")
def photos(pets_zip: Path) -> np.ndarray:
    """`uint8 [40, 64, 64, 3]`, padded with white."""
    preprocessing = Preprocessing(height=64, width=64, resize="pad")
    with open_dataset(pets_zip) as pets:
        rows = pets.rows("test")[::23][:40]
        return np.stack([images.load(pets.read(row), preprocessing) for row in rows])


def expected(photo: np.ndarray, wanted: HogFeatures) -> np.ndarray:
    def of(image: np.ndarray, axis: int | None) -> np.ndarray:
        return scikit_hog(
            image,
            wanted.orientations,
            (wanted.cell, wanted.cell),
            (wanted.block, wanted.block),
            "L2-Hys",
            channel_axis=axis,
        )

    if wanted.channels == "stacked":
        return np.concatenate([of(photo[..., channel], None) for channel in range(3)])
    if wanted.channels == "grey":
        return of(np.asarray(Image.fromarray(photo).convert("L")), None)
    return of(photo, -1)


@pytest.mark.parametrize(
    "wanted",
    [
        HogFeatures(channels="stacked", orientations=3, cell=10, block=2),
        HogFeatures(channels="strongest"),
        HogFeatures(channels="grey", orientations=12, cell=5, block=3),
        HogFeatures(channels="strongest", orientations=4, cell=16, block=1),
        HogFeatures(channels="grey", orientations=1),
    ],
    ids=lambda wanted: f"{wanted.channels}-{wanted.orientations}",
)
def test_hog_equals_scikit_image_on_photos(photos: np.ndarray, wanted: HogFeatures) -> None:
    module = Hog(wanted, 64)
    found = module(torch.from_numpy(photos)).numpy()
    assert found.shape == (len(photos), module.dim)
    assert found.dtype == np.float32
    for photo, row in zip(photos, found, strict=True):
        assert np.abs(row - expected(photo, wanted)).max() < 1e-4


@pytest.mark.parametrize("channels", ["stacked", "strongest", "grey"])
def test_the_graph_gives_what_the_module_gives_where_nothing_changes_too(
    photos: np.ndarray, channels: Literal["stacked", "strongest", "grey"]
) -> None:
    module = Hog(HogFeatures(channels=channels), 64)
    graph = module_graph(module, Preprocessing(height=64, width=64), ["features"])
    blank = np.full((1, 64, 64, 3), 255, np.uint8)
    seen = np.concatenate([photos, blank])
    found = graphs.runner(graph.model_proto)(seen)
    assert np.abs(found - module(torch.from_numpy(seen)).numpy()).max() < 1e-5
    assert not found[-1].any()


def test_an_image_too_small_for_a_block_is_refused_with_what_to_change() -> None:
    with pytest.raises(BadRecipe, match=r"features\.cell"):
        Hog(HogFeatures(cell=10, block=2), 19)
    assert Hog(HogFeatures(cell=10, block=2), 20).blocks == 1
