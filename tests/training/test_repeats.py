"""Folds and learning curves: what each model has seen, and what it is measured on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgcls.card import ModelCard
from imgcls.data import Dataset, open_dataset
from imgcls.errors import BadRecipe
from imgcls.recipes import FeaturesRecipe, load_recipe
from training import repeats, train
from training.fit import fit
from training.repeats import fold_of


def test_every_image_is_held_out_once_and_folds_are_alike(shapes: Callable[..., Path]) -> None:
    dataset = open_dataset(shapes(each=50))
    rows = dataset.rows("train")
    fold = fold_of(dataset, rows, 5, seed=0)
    targets = dataset.targets(rows)
    for number in range(5):
        held_out = np.bincount(targets[fold == number], minlength=3)
        assert np.ptp(held_out - np.bincount(targets) / 5) <= 2
        assert abs(len(rows) / 5 - (fold == number).sum()) < 1
    assert set(fold) == set(range(5))
    assert (fold_of(dataset, rows, 5, seed=0) == fold).all()
    assert (fold_of(dataset, rows, 5, seed=1) != fold).any()


def test_copies_are_in_one_fold_and_a_lonely_image_is_always_trained_on(
    shapes: Callable[..., Path], tmp_path: Path
) -> None:
    root = tmp_path / "copies"
    for number, path in enumerate(sorted((shapes() / "blue").iterdir())[:12]):
        for label, copies in (("blue", 3), ("red", 0)):
            for copy in range(copies):
                target = root / "train" / label / f"{number}-{copy}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    (root / "train" / "red").mkdir()
    for split, number in (("train", 0), ("val", 1), ("test", 2)):
        for label in ("red", "green"):
            target = root / split / label / "one.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((shapes() / label / f"{number:03d}.png").read_bytes())
    dataset = open_dataset(root)
    rows = dataset.rows("train")
    fold = fold_of(dataset, rows, 3, seed=0)
    labels = np.array(dataset.labels)[dataset.targets(rows)]
    assert set(fold[labels != "blue"]) == {-1}
    blue = [set(fold[[dataset.name(int(r)).startswith(f"train/blue/{n}-") for r in rows]])
            for n in range(12)]  # fmt: skip
    assert all(len(found) == 1 for found in blue)
    assert sorted(found.pop() for found in blue) == [0] * 4 + [1] * 4 + [2] * 4


def test_models_of_folds_are_measured_on_what_they_were_not_trained_on(
    dataset: Dataset, small_probe: FeaturesRecipe, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views: list[Dataset] = []

    def remembered(view: Dataset, *args: Any) -> Any:
        views.append(view)
        return fit(view, *args)

    monkeypatch.setattr(repeats, "fit", remembered)
    recipe = load_recipe(small_probe.model_dump(), {"folds": 3, "learning_curve": 2})
    events: list[tuple[str, Any]] = []
    card = train(
        dataset, recipe, name="folds", on_event=lambda stage, **told: events.append((stage, told))
    )
    # Features are computed once, for all of them.
    assert len(list((home / "cache" / "features").glob("*.npy"))) == 1
    train_rows = set(dataset.rows("train").tolist())
    folds, curve = views[:3], views[3:]
    assert set().union(*(view.rows("test").tolist() for view in folds)) == train_rows
    for view, metrics in zip(folds, card.fold_metrics, strict=True):
        seen, unseen = set(view.rows("train").tolist()), set(view.rows("test").tolist())
        assert seen | unseen == train_rows
        assert not seen & unseen
        assert view.rows("val").tolist() == dataset.rows("val").tolist()
        assert (metrics.split, metrics.images) == ("fold", len(unseen))
    assert sum(fold.images for fold in card.fold_metrics) == len(train_rows)
    small, whole = (set(view.rows("train").tolist()) for view in curve)
    assert small < whole == train_rows
    assert len({int(t) for t in dataset.targets(sorted(small))}) == 3
    assert [point.images for point in card.learning_curve] == [len(small), len(whole)]
    # The last model of the curve is the model itself, trained again.
    assert card.learning_curve[-1].test == pytest.approx(card.metrics.headline(), abs=1e-6)
    assert {"folds", "learning curve"} <= {stage for stage, _ in events}
    mean, spread = card.fold_summary()["accuracy"]
    values = [fold.headline()["accuracy"] for fold in card.fold_metrics]
    assert (mean, spread) == pytest.approx((np.mean(values), np.std(values, ddof=1)))


def test_more_folds_than_images_are_refused_before_anything_is_trained(
    shapes: Callable[..., Path], small_probe: FeaturesRecipe
) -> None:
    tiny = open_dataset(shapes(each=4))  # two of each for training
    for count in (2, 6):
        recipe = load_recipe(small_probe.model_dump(), {"folds": count})
        repeats.check(tiny, recipe)
        held_out = fold_of(tiny, tiny.rows("train"), count, recipe.seed)
        assert set(held_out) == set(range(count))
    recipe = load_recipe(small_probe.model_dump(), {"folds": 7})
    with pytest.raises(BadRecipe, match="has 6: take fewer folds"):
        train(tiny, recipe, name="folds")


def test_a_part_that_is_too_small_to_train_on_does_not_cost_the_model(
    shapes: Callable[..., Path],
) -> None:
    tiny = open_dataset(shapes(each=5))  # three of each for training
    recipe = load_recipe("hog-svc", {"image_size": 32, "folds": 3, "learning_curve": 5})
    card = train(tiny, recipe, name="few")
    # A machine needs two of each class.
    assert [point.images for point in card.learning_curve] == [7, 9]
    assert (len(card.fold_metrics), card.folds_told) == (3, "3")
    told: list[Any] = []
    pairs, halves = open_dataset(shapes(each=4)), load_recipe(recipe.model_dump(), {"folds": 2})
    assert repeats.folds(pairs, halves, lambda _, **said: told.append(said["message"])) == []
    assert [one for one in told if "left" in one] == ["1/2 is left out", "2/2 is left out"]


def test_a_card_with_folds_of_another_task_is_no_card(
    dataset: Dataset, small_probe: FeaturesRecipe
) -> None:
    card = train(dataset, small_probe, name="probe")
    told = card.model_dump(mode="json")
    names = ("mae", "rmse", "r2", "spearman", "mae_of_median", "coverage")
    told["fold_metrics"] = [{"split": "fold", "images": 1} | dict.fromkeys(names, 0.5)]
    with pytest.raises(ValueError, match="folds"):
        ModelCard.model_validate(told)
