"""Two models are compared on images that neither has seen a copy of, by the labels of now."""

from pathlib import Path

import numpy as np
import pytest

from imgcls.card import DatasetLineage, ModelCard
from imgcls.comparison import _macro_f1, compare
from imgcls.data import DatasetStore
from imgcls.data.fix_list import FixRow
from imgcls.errors import BadArgument, DatasetNotFound
from imgcls.registry import Registry
from tests.fakes import jpeg, tiny_model, tiny_regression

GREEN = (0.0, 999.0, 0.0)


@pytest.fixture
def store() -> DatasetStore:
    return DatasetStore()


@pytest.fixture
def colours(tmp_path: Path, store: DatasetStore) -> str:
    """Splits of red, green and blue pictures; some are red by the name of crimson."""
    for split, count in (("train", 6), ("val", 3), ("test", 4)):
        for label in ("red", "green", "blue", "crimson"):
            folder = tmp_path / "colours" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                size = (40 + number, 30 + 10 * len(split) + (label == "crimson"))
                colour = "red" if label == "crimson" else label
                (folder / f"{number}.jpg").write_bytes(jpeg(colour, size))
    return store.add(tmp_path / "colours").tag


def trained_on(tag: str, registry: Registry, model: str) -> str:
    """Let a model's card say that it was trained on a dataset."""
    folder = registry.folder(model)
    card = ModelCard.load(folder)
    lineage = DatasetLineage(tag=tag, images=1, splits={}, seed=0)
    card.model_copy(update={"dataset": lineage}).save(folder)
    return model


def test_merged_classes_count_as_one_and_both_models_answer_the_same_images(
    store: DatasetStore, colours: str, registry: Registry, tmp_path: Path
) -> None:
    fixed = store.add_fixed(colours, [FixRow(path="crimson", action="merge", value="red")]).tag
    names = ("crimson", "green", "blue")  # what the model calls red
    old = trained_on(colours, registry, tiny_model(tmp_path / "a", registry, labels=names))
    new = trained_on(fixed, registry, tiny_model(tmp_path / "b", registry, bias=GREEN))
    found = compare(old, new)
    assert (found.dataset, found.images, found.left_out) == (fixed, 16, 0)
    assert found.figures["accuracy"].old == 1
    assert found.figures["accuracy"].new == pytest.approx(4 / 16)
    low, high = found.figures["accuracy"].difference
    assert -1 <= low < -0.75 < high < 0
    assert any("before" in line for line in found.lines())


def test_copies_of_what_either_was_trained_on_are_left_out(
    store: DatasetStore, colours: str, registry: Registry, tmp_path: Path
) -> None:
    root = tmp_path / "colours"
    (root / "test" / "red" / "copy.jpg").write_bytes((root / "train/red/0.jpg").read_bytes())
    leaky = store.add(root).tag
    models = [tiny_model(tmp_path / name, registry) for name in "ab"]
    old, new = (trained_on(leaky, registry, model) for model in models)
    found = compare(old, new)
    assert (found.images, found.left_out) == (16, 1)
    assert found.figures["accuracy"].difference == (0, 0)


def test_what_cannot_be_compared_is_refused(
    store: DatasetStore, colours: str, registry: Registry, tmp_path: Path
) -> None:
    model = trained_on(colours, registry, tiny_model(tmp_path / "a", registry))
    stray = tiny_model(tmp_path / "b", registry)
    with pytest.raises(DatasetNotFound):
        compare(model, stray)
    with pytest.raises(BadArgument, match="different tasks"):
        compare(tiny_regression(tmp_path / "c", registry), model)


def test_macro_f1_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    draw = np.random.default_rng(0)
    truth, guess = draw.integers(0, 4, (2, 200))
    weights = draw.integers(0, 3, (3, 200)).astype(np.float64)
    found = _macro_f1(weights, truth, guess)
    for row, value in zip(weights, found.tolist(), strict=True):
        expected = f1_score(truth, guess, average="macro", sample_weight=row)
        assert value == pytest.approx(expected)
