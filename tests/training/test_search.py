"""Searches: within their budget, gone on with, and honest about what is chance."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgcls.data import Dataset, open_dataset
from imgcls.engine import gate
from imgcls.errors import BadArgument, BadRecipe, Conflict, SearchNotFound, TrainingFailed
from imgcls.recipes import load_recipe
from imgcls.registry import Registry
from imgcls.searches import SearchFolder, SearchPlan, seconds_of
from training.search import search
from training.study import Study
from training.trials import Outcome

CNN = SearchPlan(budget=200, trials=1, recipes=("cnn",))


def begun(dataset: Dataset, name: str = "shapes", **changes: Any) -> Study:
    folder = SearchFolder(name)
    folder.begin(CNN.model_copy(update=changes), dataset.tag, dataset.seed)
    return Study(folder, dataset)


def ended(study: Study, dataset: Dataset, right: int, **overrides: Any) -> None:
    """A trial of `cnn` as if it had run, that gets the first `right` validation images right."""
    trial = study.ask("cnn", overrides)
    folder = study.folder_of("cnn", trial.number)
    folder.mkdir(parents=True)
    for split in ("val", "test"):
        truth = dataset.targets(dataset.rows(split))
        said = np.where(np.arange(len(truth)) < right, truth, (truth + 1) % 3)
        np.save(folder / f"{split}.npy", np.eye(3, dtype=np.float32)[said])
    (folder / "model.onnx").write_bytes(b"graph")
    study.tell("cnn", trial, overrides, Outcome("complete", 1.0))


def test_a_search_ends_in_time_with_a_registered_model_and_is_gone_on_with(
    dataset: Dataset, registry: Registry
) -> None:
    events: list[str] = []

    def on_event(stage: str, **told: Any) -> None:
        events.append(stage)

    started = time.monotonic()
    card = search(dataset, CNN, name="shapes", registry=registry, on_event=on_event)
    assert time.monotonic() - started < CNN.budget
    assert registry.get(card.tag) == card
    gate(registry.folder(card.tag))
    assert list(dict.fromkeys(events))[:2] == ["loading", "searching"]
    found = SearchFolder("shapes").leaderboard()
    assert found.tag == card.tag
    assert found.verdict is None
    best = found.trials[0]
    assert best.behind is None
    assert best.value is not None
    assert best.low is not None
    assert best.low <= best.value

    again = search(dataset, CNN, name="shapes")
    assert again.tag != card.tag
    more = SearchFolder("shapes").leaderboard()
    assert len(found.trials) == 1
    assert len(more.trials) == 2
    assert more.verdict is not None
    assert "the default recipe, cnn" in more.verdict.text
    settings = [row.settings for row in more.trials if row.state == "complete"]
    assert settings.count({"network.width": 1.0, "epochs": 12}) == 1
    assert {} in settings


def test_a_budget_too_small_for_anything_says_so(dataset: Dataset, home: Path) -> None:
    plan = SearchPlan(budget=10, recipes=("cnn6",))
    with pytest.raises(TrainingFailed, match="give it more"):
        search(dataset, plan, name="shapes")


def test_where_every_cheap_start_was_too_slow_one_of_them_gets_the_time_that_is_left(
    dataset: Dataset, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.search.CHEAP", (0.0, 0.0))
    plan = SearchPlan(budget=200, trials=2, recipes=("hog-svc",))
    card = search(dataset, plan, name="shapes", registry=registry)
    assert registry.get(card.tag) == card
    states = [trial.state for trial in SearchFolder("shapes").leaderboard().trials]
    assert states == ["complete", "out_of_time"]


def test_what_was_running_when_a_search_was_killed_has_failed(dataset: Dataset) -> None:
    study = begun(dataset)
    ended(study, dataset, 5)
    study.ask("cnn", {"epochs": 12})
    after = begun(dataset)
    assert [trial.state for trial in after.trials] == ["complete", "failed"]
    assert "interrupted" in str(after.trials[1].reason)
    assert len(after.ranked()) == 1


def test_the_leaderboard_says_what_is_noise_and_only_the_best_keeps_its_graph(
    shapes: Callable[..., Path],
) -> None:
    dataset = open_dataset(shapes(each=120))
    count = len(dataset.rows("val"))
    study = begun(dataset)
    ended(study, dataset, count // 3, epochs=12)
    ended(study, dataset, count)
    ended(study, dataset, count - 1, epochs=30)
    board = SearchFolder("shapes").leaderboard()
    assert [row.number for row in board.trials] == [1, 2, 0]
    assert [row.noise for row in board.trials] == [None, True, False]
    kept = [(study.folder_of("cnn", n) / "model.onnx").exists() for n in range(3)]
    assert kept == [False, True, False]
    verdict = study.verdict(study.ranked()[0])
    assert verdict is not None
    assert not verdict.better
    assert "No recipe was better than the default recipe" in verdict.text


def test_a_winner_by_chance_is_not_called_better_than_the_default(
    shapes: Callable[..., Path],
) -> None:
    dataset = open_dataset(shapes(each=120))
    study = begun(dataset)
    tests = len(dataset.rows("test"))
    ended(study, dataset, 20)
    ended(study, dataset, 22, batch_size=32)
    verdict = study.verdict(study.ranked()[0])
    assert verdict is not None
    assert (verdict.images, verdict.better) == (tests, False)
    assert verdict.ahead[0] < 0 < verdict.ahead[1]
    assert "not better beyond chance" in verdict.text


def test_a_search_stays_with_its_data_unless_it_begins_afresh(dataset: Dataset) -> None:
    ended(begun(dataset), dataset, 5)
    folder = SearchFolder("shapes")
    with pytest.raises(Conflict, match="another name"):
        folder.check(CNN, "others:123", 0)
    with pytest.raises(BadRecipe, match="nonsense"):
        folder.check(SearchPlan(budget=60, recipes=("nonsense",)), dataset.tag, 0)
    assert begun(dataset, fresh=True).trials == []
    with pytest.raises(SearchNotFound):
        SearchFolder("nothing").leaderboard()


def test_budgets_are_lengths_of_time() -> None:
    assert [seconds_of(text) for text in ("90", "90s", "1.5h", "10m")] == [90, 90, 5400, 600]
    for text in ("", "ten", "10 m", "-5s", "1s", "999d", "1e9"):
        with pytest.raises(BadArgument):
            seconds_of(text)


def test_a_start_with_fewer_epochs_counts_as_the_default(dataset: Dataset) -> None:
    study = begun(dataset)
    ended(study, dataset, 5, epochs=20)
    assert study.trials[0].is_default
    assert study.trials[0].recipe == load_recipe("cnn", {"epochs": 20})
