"""Trials: processes that can be stopped, may die, and leave what registering needs or nothing."""

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgcls.data import Dataset
from imgcls.recipes import NetworkRecipe, load_recipe
from training import trials
from training.export import Graph
from training.loader import load_pixels
from training.trials import Pace


def listen(stage: str, told: dict[str, Any]) -> bool:
    return True


def test_a_complete_trial_can_be_loaded_and_answers_as_it_did(
    dataset: Dataset, small_cnn: NetworkRecipe, tmp_path: Path
) -> None:
    folder = tmp_path / "cnn-0"
    outcome = trials.run(dataset, small_cnn, folder, seconds=120, listen=listen)
    assert outcome.state == "complete", outcome
    fitted = trials.load(folder)
    fitted.write(tmp_path / "graph.onnx")
    pixels = load_pixels(dataset, dataset.rows("val"), fitted.preprocessing)
    answers = Graph(tmp_path / "graph.onnx").run(pixels)[0]
    assert np.abs(answers - fitted.answers["val"]).max() < 1e-4
    assert len(fitted.history) == 3
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_trial_that_will_not_be_over_in_time_is_stopped_early(
    dataset: Dataset, tmp_path: Path
) -> None:
    endless = load_recipe("cnn", {"epochs": 10_000, "early_stop.patience": 0})
    outcome = trials.run(dataset, endless, tmp_path / "cnn-0", seconds=60, listen=listen)
    assert outcome.state == "out_of_time"
    assert outcome.share is not None
    assert 0 < outcome.share < 0.5
    assert outcome.seconds < 40
    assert not (tmp_path / "cnn-0").exists()


def test_what_comes_before_the_first_progress_says_nothing_of_the_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("training.trials.time.monotonic", lambda: now)

    def at(pace: Pace, second: float, progress: float) -> float | None:
        nonlocal now
        now = 1000.0 + second
        return pace.falls_short("features", {"progress": progress})

    now = 1000.0
    begins_slowly = Pace(1090.0)
    assert [at(begins_slowly, *said) for said in ((0, 0.0), (20, 0.01), (26, 0.2))] == [None] * 3
    now = 1000.0
    is_slow = Pace(1090.0)
    assert [at(is_slow, *said) for said in ((0, 0.0), (1, 0.01))] == [None] * 2
    share = at(is_slow, 11, 0.06)  # 200 s for the whole, and 79 are left
    assert share == pytest.approx(79 / 200)


def test_a_listener_can_stop_a_trial(dataset: Dataset, tmp_path: Path) -> None:
    endless = load_recipe("cnn", {"epochs": 50})

    def enough(stage: str, told: dict[str, Any]) -> bool:
        return int(told.get("epoch") or 0) < 2

    outcome = trials.run(dataset, endless, tmp_path / "cnn-0", seconds=120, listen=enough)
    assert outcome.state == "pruned"


def test_a_trial_that_dies_or_cannot_be_done_ends_alone(dataset: Dataset, tmp_path: Path) -> None:
    def kill(stage: str, told: dict[str, Any]) -> bool:
        for child in multiprocessing.active_children():
            child.kill()
        return True

    endless = load_recipe("cnn", {"epochs": 10_000})
    killed = trials.run(dataset, endless, tmp_path / "cnn-0", seconds=120, listen=kill)
    assert killed.state == "failed"
    assert "memory" in str(killed.reason)
    wrong = load_recipe("linear-probe", {"features.weights": "/nowhere.pth"})
    failed = trials.run(dataset, wrong, tmp_path / "probe-0", seconds=120, listen=listen)
    assert failed.state == "failed"
    assert "no weights file" in str(failed.reason)
