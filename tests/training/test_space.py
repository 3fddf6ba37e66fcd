"""What a search tries: every point of every preset's space is a valid recipe."""

import optuna
import pytest

from imgcls.recipes import DEFAULT_RECIPE, PRESETS
from training import space


@pytest.mark.parametrize("preset", PRESETS)
def test_every_point_is_a_recipe_and_the_presets_own_is_one_of_them(preset: str) -> None:
    recipe = space.with_overrides(preset, {})
    dimensions = space.space(recipe)
    own = space.point(recipe, dimensions)
    assert space.with_overrides(preset, own) == recipe
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(own)
    assert study.ask(dimensions).params == own
    for _ in range(20):
        space.with_overrides(preset, study.ask(dimensions).params)


def test_cheap_recipes_come_first_and_the_default_before_the_rest() -> None:
    found = list(space.starts((), "classification"))
    assert [preset for preset, _ in found[:2]] == ["hog-svc", "hog-lightgbm"]
    assert found[-1] == (DEFAULT_RECIPE, {})
    chosen = [preset for preset, _ in space.starts(("cnn6", "cnn"), "classification")]
    assert chosen == ["cnn", "cnn", "cnn6"]
    assert "hog-svc" not in dict(space.starts((), "regression"))
