"""Networks for regression, from file names to a graph whose scores keep to their range."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from imgcls.data import Dataset, Labelling, open_dataset
from imgcls.errors import BadRecipe, TrainingFailed
from imgcls.recipes import NetworkRecipe, load_recipe
from training.events import ignore
from training.fit import fit
from training.loader import load_pixels

RATES = Labelling(pattern="{id}_{gender}_{rate}", target="rate")


@pytest.fixture(scope="module")
def lights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy grey images; how light they are is the rate in their names, from 2 to 9."""
    root = tmp_path_factory.mktemp("lights") / "lights"
    root.mkdir()
    draw_from = np.random.default_rng(0)
    for number, rate in enumerate(np.linspace(2, 9, 160)):
        pixels = draw_from.integers(0, 40, (16, 16, 3)) + 20 * rate
        name = f"{number:03d}_{'mw'[number % 2]}_{rate:.2f}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(root / name)
    return root


@pytest.fixture
def rated(lights: Path) -> Dataset:
    return open_dataset(lights, labelling=RATES)


def small(**changes: object) -> NetworkRecipe:
    recipe = load_recipe(
        {"kind": "network", "network": {"kind": "cnn", "width": 0.5, "dense": 16}},
        {"epochs": 8, "batch_size": 16, "optimizer.lr": 0.01, **changes},
    )
    assert isinstance(recipe, NetworkRecipe)
    return recipe


def test_a_network_finds_the_number_in_the_images_and_its_graph_answers_alike(
    rated: Dataset, tmp_path: Path
) -> None:
    fitted = fit(rated, small(output_range=(3, 8)), ignore)
    rows = rated.rows("test")
    truth, scores = rated.targets(rows), fitted.answers["test"]
    assert scores.shape == truth.shape
    assert scores.dtype == np.float32
    error = np.abs(scores - truth.clip(3, 8)).mean()
    median = np.median(rated.targets(rated.rows("train")))
    assert error < np.abs(median - truth).mean() / 3
    assert scores.min() >= 3
    assert scores.max() <= 8
    assert {"train_loss", "val_loss", "val_mae"} <= set(fitted.history[-1])
    assert fitted.history[-1]["val_mae"] < fitted.history[0]["val_mae"]

    fitted.write(tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx")
    pixels = load_pixels(rated, rows, fitted.preprocessing)
    graph, embedding = session.run(["score", "embedding"], {"images": pixels})
    assert np.abs(graph - scores).max() < 1e-3
    assert embedding.shape == (len(rows), fitted.embedding_dim)
    white = np.full((1, 16, 16, 3), 255, np.uint8)
    assert session.run(["score"], {"images": white})[0][0] <= 8


@pytest.mark.parametrize("given", [(0.0, 1.0), (10.0, 20.0)])
def test_a_range_that_the_targets_lie_outside_of_is_refused(
    rated: Dataset, given: tuple[float, float]
) -> None:
    with pytest.raises(BadRecipe, match="output_range to what they span"):
        fit(rated, small(output_range=given), ignore)


def test_answers_that_are_no_numbers_are_no_model(
    rated: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.loop.answers", lambda *_, **__: np.full(3, np.nan, np.float32))
    with pytest.raises(TrainingFailed, match="no number"):
        fit(rated, small(epochs=1), ignore)


def test_batches_of_one_image_are_refused_where_nothing_can_be_compared(rated: Dataset) -> None:
    network = {"kind": "architecture", "name": "resnet18", "weights": "none"}
    recipe = load_recipe({"kind": "network", "network": network, "image_size": 16, "batch_size": 1})
    with pytest.raises(BadRecipe, match="batch_size"):
        fit(rated, recipe, ignore)


def test_a_recipe_for_numbers_does_not_train_on_classes(shapes: Callable[..., Path]) -> None:
    with pytest.raises(BadRecipe, match="name the target"):
        fit(open_dataset(shapes()), load_recipe("score"), ignore)


def test_the_range_is_that_of_the_training_targets_unless_it_is_given(rated: Dataset) -> None:
    fitted = fit(rated, small(epochs=1, **{"loss.density_weights": False}), ignore)
    targets = rated.targets(rated.rows("train"))
    for scores in fitted.answers.values():
        assert scores.min() >= targets.min()
        assert scores.max() <= targets.max()


def test_a_regression_whose_images_were_to_be_mixed_is_refused(rated: Dataset) -> None:
    with pytest.raises(BadRecipe, match=r"augment\.cutmix"):
        fit(rated, small(**{"augment.cutmix": 0.5}), ignore)
