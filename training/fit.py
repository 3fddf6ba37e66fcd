"""One way in for every kind of recipe."""

from imgcls.data import Dataset
from imgcls.recipes import NetworkRecipe, Recipe
from training.events import OnEvent
from training.fit_features import fit_features
from training.fit_network import fit_network
from training.fitted import Fitted


def fit(dataset: Dataset, recipe: Recipe, emit: OnEvent) -> Fitted:
    """Train what `recipe` says on the split `train`, choosing by the split `val`.

    Raises `BadRecipe` where the recipe does not suit the data, `WeightsUnavailable` and
    `TrainingFailed`.
    """
    if isinstance(recipe, NetworkRecipe):
        return fit_network(dataset, recipe, emit)
    return fit_features(dataset, recipe, emit)
