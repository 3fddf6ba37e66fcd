"""More models of one recipe: on folds, and on growing parts of the training images.

They are measured and thrown away. Each begins afresh, and none has seen what it is measured on.
"""

from typing import Unpack

import numpy as np
import numpy.typing as npt

from imgcls.card import CurvePoint, Metrics, RegressionMetrics
from imgcls.data import Dataset
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


def folds(dataset: Dataset, recipe: Recipe, emit: OnEvent) -> list[Metrics | RegressionMetrics]:
    """The figures of `recipe.folds` models, each on the part of the training images that it was
    not trained on. All of them are selected by the validation images."""
    train = dataset.rows("train")
    count = recipe.folds or 0
    part_of = fold_of(dataset, train, count, recipe.seed)
    found = []
    for fold in range(count):
        unseen = train[part_of == fold]
        view = dataset.view(train=train[part_of != fold], test=unseen)
        judge, answers = _fitted(view, recipe, _share(emit, "folds", fold, count))
        found.append(judge.measure(view.targets(unseen), answers, split="fold", resamples=0))
        headline = found[-1].headline()
        emit("folds", progress=(fold + 1) / count, metrics=headline, message=f"{fold + 1}/{count}")
    return found


def learning_curve(dataset: Dataset, recipe: Recipe, emit: OnEvent) -> list[CurvePoint]:
    """What `recipe.learning_curve` models reach, trained on a tenth to all of the training images,
    each part within the next: on the test images, and on up to 1,000 that they were trained on."""
    test, train = dataset.rows("test"), _spread_out(dataset, dataset.rows("train"), recipe.seed)
    count = recipe.learning_curve or 0
    sizes = np.linspace(SMALLEST_SHARE, 1.0, count) * len(train)
    points = []
    for number, size in enumerate(np.maximum(1, sizes.round().astype(int))):
        part = train[:size]
        seen = part[:_MOST_SEEN]
        view = dataset.view(train=np.sort(part), test=np.concatenate([test, seen]))
        judge, answers = _fitted(view, recipe, _share(emit, "learning curve", number, count))
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
    fold = np.empty(len(first), np.int64)
    fold[order] = np.arange(len(first)) % count
    if dataset.task == "classification":
        fold[np.bincount(targets)[targets] == 1] = -1
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


def _fitted(view: Dataset, recipe: Recipe, emit: OnEvent) -> tuple[Judge, Floats]:
    """A model of the recipe: its judge, and its calibrated answers to the test rows."""
    with reproducible(recipe.seed):
        fitted = fit(view, recipe, emit)
    judge = Judge.of(view, recipe, fitted.answers["val"])
    return judge, judge.calibrated(fitted.answers["test"])


def _share(emit: OnEvent, whole: str, number: int, count: int) -> OnEvent:
    """Events of one training as progress of a stage of `count` of them."""

    def passed_on(stage: str, **told: Unpack[Told]) -> None:
        progress = told.get("progress")
        if stage == "training" and progress is not None:
            emit(whole, progress=(number + progress) / count, message=f"{number + 1}/{count}")

    return passed_on
