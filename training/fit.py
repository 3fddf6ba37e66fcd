"""One way in for every kind of recipe."""

from pathlib import Path

from imgcls.data import Dataset
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
    if isinstance(recipe, NetworkRecipe):
        return fit_network(dataset, recipe, emit, checkpoint_dir=checkpoint_dir)
    return fit_features(dataset, recipe, emit, cluster=cluster)
