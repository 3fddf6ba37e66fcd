"""What a search tries: the presets to begin with, and how far each setting may be moved.

The names of the dimensions are the dotted keys of overrides, so a point is a recipe at once.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from imgcls.recipes import DEFAULT_RECIPE, FeaturesRecipe, Recipe, load_recipe
from imgcls.recipes.types import (
    Architecture,
    BackboneFeatures,
    CatBoostHead,
    CnnNetwork,
    DenseSiftFeatures,
    Features,
    Head,
    HogFeatures,
    LightGbmHead,
    LinearHead,
    Network,
    RandomForestHead,
    SvcHead,
)

Overrides = dict[str, Any]
Space = dict[str, BaseDistribution]

CHEAP: dict[str, Overrides] = {
    "hog-svc": {},
    "hog-lightgbm": {},
    "sift-lightgbm": {},
    "linear-probe": {"image_size": 112},
    "cnn": {"network.width": 1.0, "epochs": 12},
}
"""Where a search begins, by preset, cheapest first: in seconds to a minute each for some
thousand small images."""


def starts(presets: tuple[str, ...], task: str) -> Iterator[tuple[str, Overrides]]:
    """The first points: presets cheaply, then the default recipe, then the others as they are.

    Without `presets` it is the cheap ones that suit the task.
    """
    chosen = presets or tuple(p for p in CHEAP if task == "classification" or p != "hog-svc")
    yield from ((preset, cheap) for preset, cheap in CHEAP.items() if preset in chosen)
    whole = [preset for preset in chosen if preset not in CHEAP or preset == DEFAULT_RECIPE]
    yield from ((preset, {}) for preset in sorted(whole, key=lambda p: p != DEFAULT_RECIPE))


def with_overrides(preset: str, point: Mapping[str, Any]) -> Recipe:
    """The recipe at a point; null leaves a setting as the preset has it.

    Nothing is trained again and again for folds and learning curves: a search has no time for that.
    """
    recipe = load_recipe(preset, {k: v for k, v in point.items() if v is not None})
    return recipe.model_copy(update={"folds": None, "learning_curve": None})


def space(recipe: Recipe) -> Space:
    """The dimensions along which a preset may be varied; all of them contain its own values."""
    if isinstance(recipe, FeaturesRecipe):
        return {
            **_features(recipe.features, recipe.image_size),
            **_head(recipe.head),
            "reduce.variance": CategoricalDistribution((None, 0.8, 0.9, 0.95)),
        }
    return {
        "epochs": IntDistribution(max(1, recipe.epochs // 4), 2 * recipe.epochs),
        "batch_size": CategoricalDistribution(_around(recipe.batch_size)),
        "optimizer.weight_decay": FloatDistribution(0.0, 0.2),
        "loss.label_smoothing": FloatDistribution(0.0, 0.2),
        "augment.cutmix": CategoricalDistribution((None, 0.0, 0.25, 0.5, 0.75)),
        **_lr("optimizer.lr", recipe.optimizer.lr),
        **_network(recipe.network),
    }


def point(recipe: Recipe, dimensions: Space) -> Overrides:
    """The values of a recipe's own settings along `dimensions`; what it leaves open is null."""
    told = recipe.model_dump(mode="json")
    found: Overrides = {}
    for key in dimensions:
        part, _, leaf = key.rpartition(".")
        found[key] = ((told[part] or {}) if part else told).get(leaf)
    return found


def _features(part: Features, side: int | None) -> Space:
    if isinstance(part, HogFeatures):
        return {
            "features.channels": CategoricalDistribution(("stacked", "strongest", "grey")),
            "features.orientations": IntDistribution(3, 12),
            "features.cell": CategoricalDistribution(tuple(sorted({6, 8, 10, 12, part.cell}))),
        }
    if isinstance(part, DenseSiftFeatures):
        words = tuple(sorted({128, 256, 512, part.words}))
        return {"features.words": CategoricalDistribution(words)}
    if isinstance(part, BackboneFeatures) and side is not None:
        return {"image_size": CategoricalDistribution(tuple(sorted({side // 2, side})))}
    return {}


def _head(part: Head) -> Space:
    match part:
        case LinearHead():
            return {
                "head.C": _around_log(part.C, 1000),
                "head.epochs": IntDistribution(max(1, part.epochs // 4), 2 * part.epochs),
                **_lr("head.lr", part.lr),
            }
        case SvcHead():
            return {
                "head.C": _around_log(part.C, 30),
                "head.kernel": CategoricalDistribution(("rbf", "poly", "linear")),
            }
        case RandomForestHead():
            return {
                "head.trees": IntDistribution(100, max(600, part.trees)),
                "head.min_leaf": IntDistribution(1, max(10, part.min_leaf)),
            }
        case LightGbmHead():
            return {
                "head.trees": IntDistribution(50, max(600, part.trees)),
                "head.leaves": IntDistribution(7, max(127, part.leaves)),
                "head.min_leaf": IntDistribution(1, max(60, part.min_leaf)),
                **_lr("head.lr", part.lr),
            }
        case CatBoostHead():
            return {
                "head.trees": IntDistribution(100, max(1000, part.trees)),
                "head.depth": IntDistribution(3, max(8, part.depth)),
                **_lr("head.lr", part.lr),
            }


def _network(part: Network) -> Space:
    match part:
        case CnnNetwork():
            return {
                "network.width": CategoricalDistribution(
                    tuple(sorted({1.0, 1.5, 2.0, 3.0, part.width}))
                ),
                "network.dropout": FloatDistribution(0.0, 0.3),
                "network.dense_dropout": FloatDistribution(0.0, 0.6),
            }
        case Architecture():
            return {"network.dropout": FloatDistribution(0.0, 0.5)}


def _lr(key: str, lr: float | str) -> Space:
    """A factor of ten either way; a learning rate that is found (`auto`) stays so."""
    return {} if isinstance(lr, str) else {key: _around_log(lr, 10)}


def _around_log(value: float, factor: float) -> FloatDistribution:
    return FloatDistribution(value / factor, value * factor, log=True)


def _around(value: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys((max(1, value // 2), value, value * 2)))
