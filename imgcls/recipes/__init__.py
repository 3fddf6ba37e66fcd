"""Typed training configurations: what `training/` does, decided before torch is imported.

A recipe is a preset's name, or a mapping that changes one (`preset: cnn`, `epochs: 20`), and is
changed further by overrides (`optimizer.lr=0.01`). Unknown keys are refused by name, so a typing
mistake never trains the wrong model.

    types      what a recipe can say: features -> reduce -> head, or a network
    presets    the named ones, with what they are good for and what they cost
    loading    names, mappings, overrides and YAML to a recipe, and back
"""

from imgcls.recipes.loading import (
    load_recipe,
    parse_override,
    read_recipe_file,
    to_yaml,
    with_weights,
)
from imgcls.recipes.presets import DEFAULT_RECIPE, PRESETS, Preset
from imgcls.recipes.types import (
    FeaturesRecipe,
    NetworkRecipe,
    Recipe,
)

__all__ = [
    "DEFAULT_RECIPE",
    "PRESETS",
    "FeaturesRecipe",
    "NetworkRecipe",
    "Preset",
    "Recipe",
    "load_recipe",
    "parse_override",
    "read_recipe_file",
    "to_yaml",
    "with_weights",
]
