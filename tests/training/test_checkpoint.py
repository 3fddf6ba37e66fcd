"""Trainings that are stopped go on as if they had not been, and refuse what is not theirs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imgcls.errors import Conflict
from imgcls.recipes import NetworkRecipe, load_recipe
from training.augment import Augmenter
from training.checkpoint import CHECKPOINT_FILE, Checkpoint
from training.loop import FittedNetwork, fit
from training.networks import cnn
from training.objectives import Classification
from training.pixels import Examples
from training.seeding import reproducible


class Killed(BaseException):
    """Ends a run at once, as a signal does."""


def noise(count: int) -> Examples:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), np.uint8)
    return Examples(pixels, np.arange(count), np.arange(count) % 2)


def recipe(**changes: Any) -> NetworkRecipe:
    made = load_recipe("cnn", {"epochs": 6, "batch_size": 8, **changes})
    assert isinstance(made, NetworkRecipe)
    return made


def run(
    wanted: NetworkRecipe, checkpoint: Checkpoint | None = None, *, killed_after: int | None = None
) -> FittedNetwork:
    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == killed_after:
            raise Killed

    with reproducible(wanted.seed):
        network = cnn(16, 2, width=0.5, dense=8, dropout=0.2, dense_dropout=0.3)
        augment = Augmenter(wanted.augment.model_copy(update={"cutmix": 0.5}), (16, 16), 2)
        return fit(
            network,
            noise(40),
            noise(16),
            wanted,
            Classification(np.ones(2, np.float32)),
            augment=augment,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )


def told(fitted: FittedNetwork) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in fitted.history]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": {"name": "sgd", "lr": 0.05, "accumulate": 2}, "schedule.name": "cosine"},
        {"optimizer": {"name": "adam", "lr": "auto"}, "average": False},
        {"early_stop.patience": 1},
    ],
    ids=["default", "sgd", "auto", "early-stop"],
)
def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    wanted = recipe(**changes)
    undisturbed = run(wanted)
    for killed_after in (1, 2):
        with pytest.raises(Killed):
            run(wanted, Checkpoint(tmp_path, "same"), killed_after=killed_after)
    resumed = run(wanted, Checkpoint(tmp_path, "same"))
    assert told(resumed) == told(undisturbed)
    for name, value in undisturbed.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    # One that has ended is not trained again.
    again = run(wanted, Checkpoint(tmp_path, "same"))
    assert again.history == resumed.history


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(recipe(), Checkpoint(tmp_path, "one"), killed_after=1)
    with pytest.raises(Conflict, match="another training"):
        run(recipe(), Checkpoint(tmp_path, "other"))
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(Conflict, match="begin anew"):
        run(recipe(), Checkpoint(tmp_path, "one"))


def test_a_checkpoint_that_cannot_be_written_does_not_stop_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert len(run(recipe(epochs=2), Checkpoint(tmp_path / "file", "x")).history) == 2
    assert "No checkpoint" in caplog.text
