"""Wrong labels are found by models that have not seen them, and become findings and fixes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imgcls.data import DatasetStore, Labelling, open_dataset
from imgcls.errors import BadArgument, BadDataset
from imgcls.findings import find
from imgcls.findings.mending import to_fixes
from imgcls.recipes import load_recipe
from training.events import ignore
from training.mislabelled import _out_of_fold, find_mislabelled, main, posterior

PIXELS = {
    "kind": "features",
    "features": {"kind": "pixels"},
    "head": {"kind": "linear", "epochs": 8, "batch_size": 16},
    "image_size": 8,
}


@pytest.fixture
def swapped(shapes: Callable[..., Path], tmp_path: Path) -> Path:
    """Coloured shapes, three of which lie under another colour."""
    root = tmp_path / "swapped"
    shutil.copytree(shapes(), root)
    for name, given in (
        ("blue/003.png", "green"),
        ("red/007.png", "blue"),
        ("red/011.png", "green"),
    ):
        (root / name).rename(root / given / f"wrong-{name.replace('/', '-')}")
    return root


def test_wrong_labels_are_found_with_the_right_ones(swapped: Path) -> None:
    with open_dataset(swapped) as dataset:
        found = find_mislabelled(dataset, load_recipe(PIXELS), folds=3)
    assert {one.paths[0]: one.fix.value for one in found if one.fix} == {
        "green/wrong-blue-003.png": "blue",
        "blue/wrong-red-007.png": "red",
        "green/wrong-red-011.png": "red",
    }
    assert all(0.1 <= one.confidence <= 1 for one in found)


def test_an_image_of_a_class_that_the_model_has_never_seen_is_not_judged(
    shapes: Callable[..., Path], tmp_path: Path
) -> None:
    root = tmp_path / "rare"
    shutil.copytree(shapes(), root)
    for path in sorted((root / "green").iterdir())[2:]:
        path.unlink()
    with open_dataset(root) as dataset:
        # Of two, one is what the model is chosen by while the other is held out.
        rows, probabilities = _out_of_fold(dataset, load_recipe(PIXELS), 3, ignore)
        assert len(rows) == len(probabilities) == len(dataset) - 1
        assert [dataset.labels[at] for at in dataset.targets(rows)].count("green") == 1


def test_what_was_found_is_kept_with_the_dataset_and_mended_by_its_fixes(swapped: Path) -> None:
    store = DatasetStore()
    tag = store.add(swapped).tag
    changes = ("features.kind=pixels", "image_size=8", "head.epochs=8", "head.batch_size=16")
    options = [f"--set={change}" for change in changes]
    assert main([tag, "--folds=3", *options]) == 0
    with store.open(tag) as dataset:
        wrong = [one for one in find(dataset) if one.kind == "mislabelled"]
    assert len(wrong) == 3
    fixed = store.add_fixed(tag, to_fixes(wrong, 0.0)).tag
    index = store.index(fixed)
    labels = dict(zip(index["path"].to_pylist(), index["label"].to_pylist(), strict=True))
    assert labels["green/wrong-blue-003.png"] == "blue"
    with store.open(fixed) as dataset:
        assert "mislabelled" not in {one.kind for one in find(dataset)}


def test_the_confidence_is_that_of_bayes() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    found = posterior(probabilities, np.array([1, 1]))
    assert found[0, 0] == pytest.approx(0.9 * 0.0165 / (0.9 * 0.0165 + 0.1 * 0.967))
    assert found[1, 0] < 0.002
    assert (found[:, 1] == 0).all()


def test_what_cannot_be_judged_is_refused(shapes: Callable[..., Path], tmp_path: Path) -> None:
    root = tmp_path / "rates"
    root.mkdir()
    for number, path in enumerate(sorted((shapes() / "blue").iterdir())):
        shutil.copy(path, root / f"{number}_{number % 7}.png")
    read_as = Labelling(pattern="{id}_{rate}", target="rate")
    with open_dataset(root, labelling=read_as) as dataset, pytest.raises(BadArgument):
        find_mislabelled(dataset, load_recipe(PIXELS))
    few = tmp_path / "few"
    for label in ("blue", "red"):
        (few / label).mkdir(parents=True)
        shutil.copy(shapes() / label / "000.png", few / label / "0.png")
    with open_dataset(few) as dataset, pytest.raises(BadDataset):
        find_mislabelled(dataset, load_recipe(PIXELS))
