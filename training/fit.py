"""One way in for every kind of recipe."""

from pathlib import Path

import numpy as np

from imgcls.data import Dataset
from imgcls.errors import BadRecipe, TrainingFailed
from imgcls.recipes import NetworkRecipe, Recipe
from training.events import OnEvent
from training.fit_features import fit_features
from training.fit_network import fit_network
from training.fitted import Fitted


def fit(
    dataset: Dataset,
    recipe: Recipe,
    emit: OnEvent,
    *,
    checkpoint_dir: Path | None = None,
    cluster: str | None = None,
) -> Fitted:
    """Train what `recipe` says on the split `train`, choosing by the split `val`.

    Networks save every epoch in `checkpoint_dir`, and go on from what they find there. Features
    are computed on the Ray cluster at the address `cluster`, where one is given.

    Raises `BadRecipe` where the recipe does not suit the data, `WeightsUnavailable` and
    `TrainingFailed`.
    """
    _check_range(dataset, recipe)
    fitted = (
        fit_network(dataset, recipe, emit, checkpoint_dir=checkpoint_dir)
        if isinstance(recipe, NetworkRecipe)
        else fit_features(dataset, recipe, emit, cluster=cluster)
    )
    if not all(np.isfinite(answers).all() for answers in fitted.answers.values()):
        raise TrainingFailed(
            "What was trained gives no number for some images: take gentler settings, such as a "
            "lower learning rate."
        )
    return fitted


def _check_range(dataset: Dataset, recipe: Recipe) -> None:
    """Raises `BadRecipe` for a range where there are classes, and for one that does not hold the
    median of the targets: saying that would be better than any model within it."""
    if recipe.output_range is None:
        return
    low, high = recipe.output_range
    if dataset.task == "classification":
        raise BadRecipe(
            f"The recipe answers with numbers (output_range), and {dataset.tag} has classes: name "
            "the target of the images, or take another recipe."
        )
    median = float(np.median(dataset.targets(dataset.rows("train"))))
    if not low <= median <= high:
        raise BadRecipe(
            f"output_range is {low:g} to {high:g}, and the median of the targets is {median:g}: "
            "set output_range to what they span, or to null."
        )
