"""Features recipes from images to a registered graph that serving answers with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime import InferenceSession
from PIL import Image

from imgcls.data import Dataset, Labelling, open_dataset
from imgcls.engine import Engine
from imgcls.errors import BadDataset, BadRecipe
from imgcls.recipes import FeaturesRecipe, load_recipe
from imgcls.registry import Registry
from training import train
from training.events import ignore
from training.fit_features import fit_features
from training.loader import load_pixels

RECIPES: dict[str, dict[str, Any]] = {
    "hog, PCA, SVC": {"preset": "hog-svc", "reduce": {"kind": "pca", "variance": 0.9}},
    "hog, CatBoost": {"preset": "hog-catboost", "head": {"trees": 20}},
    "dense SIFT, LightGBM": {
        "preset": "sift-lightgbm",
        "features": {"words": 16},
        "head": {"trees": 20, "min_leaf": 5},
    },
    "pixels, PCA, random forest": {
        "kind": "features",
        "features": {"kind": "pixels"},
        "reduce": {"kind": "pca", "components": 12},
        "head": {"kind": "random-forest", "trees": 20},
    },
    "pixels, linear": {
        "kind": "features",
        "image_size": 8,
        "features": {"kind": "pixels"},
        "head": {"kind": "linear", "epochs": 5},
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_what_was_fitted_is_what_is_served(name: str, dataset: Dataset, registry: Registry) -> None:
    card = train(dataset, load_recipe(RECIPES[name]), name="shapes", registry=registry)
    assert card.parity < 1e-4
    engine = Engine.load(registry.folder(card.tag))
    engine.replay_goldens()
    rows = dataset.rows("test")
    pixels = load_pixels(dataset, rows, card.preprocessing)
    probabilities, embedding = engine.run(pixels)
    assert probabilities.shape == (len(rows), 3)
    assert embedding.shape == (len(rows), card.embedding_dim)
    accuracy = (probabilities.argmax(1) == dataset.targets(rows)).mean()
    assert accuracy == pytest.approx(card.metrics.headline()["accuracy"])
    if "pixels" in name:  # the colour is the class, and only pixels know colours
        assert accuracy > 0.7
    alone = np.concatenate([engine.run(pixels[i : i + 1])[0] for i in range(len(pixels))])
    assert np.abs(alone - probabilities).max() < 1e-3


def test_features_that_do_not_fit_the_image_are_refused(dataset: Dataset) -> None:
    recipe = load_recipe("hog-svc", {"image_size": 16})
    with pytest.raises(BadRecipe, match=r"features\.cell"):
        train(dataset, recipe, name="shapes")


def test_images_without_a_weight_are_not_trained_on(ramps: Dataset, tmp_path: Path) -> None:
    rows = [f"{path.name},{float(path.stem[4:])},{float(path.stem[4:]) < 120:d}"
            for path in sorted(Path(ramps.path).glob("*.png"))]  # fmt: skip
    table = tmp_path / "table.csv"
    recipe = load_recipe(
        {
            "kind": "features",
            "image_size": 8,
            "features": {"kind": "pixels"},
            "head": {"kind": "random-forest", "trees": 10},
        }
    )
    table.write_text("\n".join(["path,target,weight", *rows]))
    weighted = open_dataset(ramps.path, table=table)
    assert isinstance(recipe, FeaturesRecipe)
    answers = fit_features(weighted, recipe, ignore).answers["test"]
    assert weighted.targets(weighted.rows("test")).max() > 150
    assert answers.max() < 120
    table.write_text("\n".join(["path,target,weight", *(row[:-1] + "0" for row in rows)]))
    with pytest.raises(BadDataset, match="weight"):
        fit_features(open_dataset(ramps.path, table=table), recipe, ignore)


@pytest.fixture
def ramps(tmp_path: Path) -> Dataset:
    """Grey images whose brightness, 20 to 220, is told by their names."""
    root = tmp_path / "ramps"
    root.mkdir()
    draw = np.random.default_rng(3)
    for number in range(120):
        light = 20 + 200 * number / 119
        noise = draw.normal(light, 10, (16, 16, 3)).clip(0, 255)
        Image.fromarray(noise.astype(np.uint8)).save(root / f"{number:03d}_{light:.1f}.png")
    return open_dataset(root, labelling=Labelling(pattern="{id}_{light}", target="light"))


@pytest.mark.parametrize("kind", ["linear", "svc", "random-forest", "lightgbm", "catboost"])
def test_numbers_are_answered_in_their_own_units_and_range(
    kind: str, ramps: Dataset, tmp_path: Path
) -> None:
    trees = {"trees": 50} if kind not in ("linear", "svc") else {}
    recipe = load_recipe(
        {
            "kind": "features",
            "image_size": 8,
            "features": {"kind": "pixels"},
            "reduce": {"kind": "pca", "components": 4},
            "head": {"kind": kind, **trees},
            "output_range": [50, 200],
        }
    )
    assert isinstance(recipe, FeaturesRecipe)
    fitted = fit_features(ramps, recipe, ignore)
    fitted.write(tmp_path / "model.onnx")
    rows = ramps.rows("test")
    session = InferenceSession(tmp_path / "model.onnx")
    assert [output.name for output in session.get_outputs()] == ["score", "embedding"]
    pixels = load_pixels(ramps, rows, fitted.preprocessing)
    score, embedding = session.run(None, {"images": pixels})
    assert score.shape == (len(rows),)
    assert embedding.shape == (len(rows), fitted.embedding_dim)
    assert np.abs(score - fitted.answers["test"]).max() < 1e-2
    truth = ramps.targets(rows).clip(50, 200)
    assert np.abs(score - truth).mean() < 0.4 * np.abs(truth - np.median(truth)).mean()
    extremes = np.stack([np.full((8, 8, 3), light, np.uint8) for light in (0, 255)])
    score, _ = session.run(None, {"images": extremes})
    assert score.min() >= 50
    assert score.max() <= 200
