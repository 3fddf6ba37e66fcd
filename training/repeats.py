"""More models of one recipe: on folds, and on growing parts of the training images.

They are measured and thrown away. Each begins afresh, and none has seen what it is measured on. One
that cannot be trained, perhaps for want of images, is left out: the model itself exists by then.
"""

import logging
from typing import Unpack

import numpy as np
import numpy.typing as npt

from imgcls.card import CurvePoint, Metrics, RegressionMetrics
from imgcls.data import Dataset
from imgcls.errors import BadRecipe, ImgclsError
from imgcls.jobs import Told
from imgcls.recipes import Recipe
from training.events import OnEvent
from training.fit import fit
from training.fitted import Floats
from training.judge import Judge
from training.seeding import reproducible

Rows = npt.NDArray[np.int64]

SMALLEST_SHARE = 0.1
"""Of the training images, with which a learning curve begins."""
_MOST_SEEN = 1_000
"""Training images that a point of a learning curve is measured on."""

_log = logging.getLogger(__name__)


def check(dataset: Dataset, recipe: Recipe) -> None:
    """Raises `BadRecipe` for more folds than there are training images to hold out."""
    if recipe.folds is None:
        return
    held_out = fold_of(dataset, dataset.rows("train"), recipe.folds, recipe.seed)
    if (there := len(np.unique(held_out[held_out >= 0]))) < recipe.folds:
        raise BadRecipe(
            f"folds={recipe.folds} needs so many different training images that can be held out, "
            f"and {dataset.tag} has {there}: take fewer folds, or more images."
        )


def folds(dataset: Dataset, recipe: Recipe, emit: OnEvent) -> list[Metrics | RegressionMetrics]:
    """The figures of `recipe.folds` models, each on the part of the training images that it was
    not trained on. All of them are selected by the validation images."""
    if recipe.folds is None:
        return []
    train, count = dataset.rows("train"), recipe.folds
    part_of = fold_of(dataset, train, count, recipe.seed)
    found = []
    for fold in range(count):
        unseen = train[part_of == fold]
        view = dataset.view(train=train[part_of != fold], test=unseen)
        fitted = _fitted(view, recipe, emit, "folds", fold, count)
        if fitted is None:
            continue
        judge, answers = fitted
        found.append(judge.measure(view.targets(unseen), answers, split="fold", resamples=0))
        headline = found[-1].headline()
        emit("folds", progress=(fold + 1) / count, metrics=headline, message=f"{fold + 1}/{count}")
    return found


def learning_curve(dataset: Dataset, recipe: Recipe, emit: OnEvent) -> list[CurvePoint]:
    """What `recipe.learning_curve` models reach, trained on a tenth to all of the training images,
    each part within the next: on the test images, and on up to 1,000 that they were trained on.

    The smallest part has an image of each class, or two; there are fewer parts than images.
    """
    if recipe.learning_curve is None:
        return []
    test, train = dataset.rows("test"), _spread_out(dataset, dataset.rows("train"), recipe.seed)
    least = len(np.unique(dataset.targets(train))) if dataset.labels else min(2, len(train))
    shares = np.linspace(SMALLEST_SHARE, 1.0, recipe.learning_curve)
    sizes = np.unique(np.maximum(least, (shares * len(train)).round().astype(int)))
    count = len(sizes)
    points = []
    for number, size in enumerate(sizes):
        part = train[:size]
        seen = part[:_MOST_SEEN]
        view = dataset.view(train=np.sort(part), test=np.concatenate([test, seen]))
        fitted = _fitted(view, recipe, emit, "learning curve", number, count)
        if fitted is None:
            continue
        judge, answers = fitted
        figures = [
            judge.measure(view.targets(rows), some, resamples=0).headline()
            for rows, some in ((seen, answers[len(test) :]), (test, answers[: len(test)]))
        ]
        points.append(CurvePoint(images=int(size), train=figures[0], test=figures[1]))
        told = f"{number + 1}/{count}"
        emit("learning curve", progress=(number + 1) / count, metrics=figures[1], message=told)
    return points


def fold_of(dataset: Dataset, rows: Rows, count: int, seed: int) -> Rows:
    """For each of `rows` the fold, 0 to `count` - 1, in which it is held out.

    Every fold has its share of each class, or of low and high targets; copies of one picture are
    in one fold. An image that is the only one of its class is -1: it is trained on in all folds.
    """
    names = np.array([dataset.picture(int(row)) for row in rows])
    _, first, group = np.unique(names, return_index=True, return_inverse=True)
    targets = dataset.targets(rows)[first]
    shuffled = np.random.default_rng(seed).permutation(len(first))
    order = shuffled[np.argsort(targets[shuffled], kind="stable")]
    if dataset.task == "classification":
        order = order[np.bincount(targets)[targets[order]] > 1]
    fold = np.full(len(first), -1)
    fold[order] = np.arange(len(order)) % count
    return fold[group]


def _spread_out(dataset: Dataset, rows: Rows, seed: int) -> Rows:
    """The rows in an order whose every beginning has all classes, in their shares as far as that
    goes; of a regression, in any order."""
    rows = np.random.default_rng(seed).permutation(rows)
    targets = dataset.targets(rows)
    if dataset.task == "regression":
        return rows
    place = np.empty(len(rows))
    for code in np.unique(targets):
        members = np.flatnonzero(targets == code)
        place[members] = np.arange(len(members)) / len(members)  # the first of each is at 0
    return rows[np.argsort(place, kind="stable")]


def _fitted(
    view: Dataset, recipe: Recipe, emit: OnEvent, whole: str, number: int, count: int
) -> tuple[Judge, Floats] | None:
    """A model of the recipe, the `number`th of `count`: its judge, and its calibrated answers to
    the test rows. None where it cannot be trained."""
    try:
        with reproducible(recipe.seed):
            fitted = fit(view, recipe, _share(emit, whole, number, count))
        judge = Judge.of(view, recipe, fitted.answers["val"])
        return judge, judge.calibrated(fitted.answers["test"])
    except Exception as err:  # whatever it was, hours of training are not to be lost by it
        known = isinstance(err, ImgclsError)
        _log.warning("%s: %d/%d is left out: %s", whole, number + 1, count, err, exc_info=not known)
        emit(whole, progress=(number + 1) / count, message=f"{number + 1}/{count} is left out")
        return None


def _share(emit: OnEvent, whole: str, number: int, count: int) -> OnEvent:
    """Events of one training as progress of a stage of `count` of them."""

    def passed_on(stage: str, **told: Unpack[Told]) -> None:
        progress = told.get("progress")
        if stage == "training" and progress is not None:
            emit(whole, progress=(number + progress) / count, message=f"{number + 1}/{count}")

    return passed_on
