"""Small real data sets: coloured shapes in class folders, and one trained model of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imgcls.data import Dataset, open_dataset
from imgcls.recipes import FeaturesRecipe, NetworkRecipe, load_recipe

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 40, 40)}


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`shapes(classes=3, each=30, side=16)`: a folder of PNGs whose colour is their class."""
    made: dict[tuple[int, int, int], Path] = {}

    def make(classes: int = 3, each: int = 30, side: int = 16) -> Path:
        key = (classes, each, side)
        if key not in made:
            root = tmp_path_factory.mktemp("shapes") / "shapes"
            draw_from = np.random.default_rng(7)
            for label in list(COLOURS)[:classes]:
                (root / label).mkdir(parents=True)
                for number in range(each):
                    pixels = draw_from.integers(0, 90, (side, side, 3), dtype=np.uint8)
                    image = Image.fromarray(pixels)
                    x, y = draw_from.integers(0, side // 2, 2).tolist()
                    ImageDraw.Draw(image).rectangle(
                        (x, y, x + side // 2, y + side // 2), fill=COLOURS[label]
                    )
                    image.save(root / label / f"{number:03d}.png")
            made[key] = root
        return made[key]

    return make


@pytest.fixture
def dataset(shapes: Callable[..., Path]) -> Dataset:
    return open_dataset(shapes())


@pytest.fixture
def small_cnn() -> NetworkRecipe:
    network = {"width": 0.5, "dense": 16}
    changes = {"epochs": 3, "batch_size": 16, "network": network, "optimizer.lr": 0.01}
    recipe = load_recipe("cnn", changes)
    assert isinstance(recipe, NetworkRecipe)
    return recipe


@pytest.fixture
def small_probe() -> FeaturesRecipe:
    head = {"epochs": 5, "batch_size": 16}
    changes = {"features.weights": "none", "image_size": 32, "head": head}
    recipe = load_recipe("linear-probe", changes)
    assert isinstance(recipe, FeaturesRecipe)
    return recipe
