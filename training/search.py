"""Search among recipes within a budget: cheap ones first, then the default one, then variations.

Trials are compared on validation images alone. A preset that is behind the best by more than chance
is left; of the others the one that has had the least time is varied next. Test images are looked at
once, at the end, for the winner and the default recipe. Everything is on disk after each trial, so
that a search may be killed and gone on with.
"""

import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna

from imgcls.card import ModelCard
from imgcls.data import Dataset, open_dataset
from imgcls.errors import TrainingFailed
from imgcls.jobs import Told, Tracker
from imgcls.recipes import NetworkRecipe, load_recipe
from imgcls.registry import Registry
from imgcls.searches import SearchFolder, SearchPlan
from training import space, trials
from training.events import OnEvent, ignore
from training.run import train
from training.study import PRUNING_STEPS, Study, Trial
from training.tracking import Run, tracked
from training.trials import Outcome

RESERVE = (5.0, 0.06)
"""Seconds, or share of the budget, that are kept for testing and registering the winner."""
CHEAP = (10.0, 0.15)
"""Most that a cheap start may take: seconds, or share of the budget, whichever is more."""
SHORTENED = 0.85
"""A network that would not be over in time is begun again with this share of the epochs that there
was time for."""
WORTH_BEGINNING = 0.25
"""Share of a network's usual time that must be left for another one."""
PATIENCE = 5.0
"""Times the usual time of a features recipe that a variation of it may take."""
GIVEN_UP = 3
"""Variations in a row that fail before a preset is left."""


def search(
    dataset: Dataset | str | Path,
    plan: SearchPlan,
    *,
    name: str,
    registry: Registry | None = None,
    on_event: OnEvent | None = None,
    baseline: bool = False,
    seed: int = 0,
    track: Sequence[Tracker] = (),
) -> ModelCard:
    """Look for the best recipe within `plan.budget` seconds, and register what it made as `name`.

    The budget counts from when the libraries are loaded. `dataset` is as for `train`; each trial
    is a run of its own in the trackers. The leaderboard lies in `SearchFolder(name)` from the
    first trial on. Raises `BadDataset`, `BadRecipe`, `Conflict` (see `SearchFolder.check`), and
    `TrainingFailed` where no trial was over in time.
    """
    emit = on_event or ignore
    emit("loading", progress=0.0)
    trials.ready()
    started = time.monotonic()
    data = dataset if isinstance(dataset, Dataset) else open_dataset(dataset, seed=seed)
    with nullcontext() if data is dataset else data:
        data.check_trainable()
        folder = SearchFolder(name)
        folder.begin(plan, data.tag, data.seed)
        study = Study(folder, data)
        winner = _Run(study, data, plan, emit, track, started).winner()
        card = train(
            data,
            winner.recipe,
            name=name,
            registry=registry,
            on_event=emit,
            baseline=baseline,
            fitted=trials.load(winner.folder),
        )
        study.save(card.tag, study.verdict(winner))
    return card


class _Run:
    """One run of a search: what is tried, and for how long."""

    def __init__(
        self,
        study: Study,
        data: Dataset,
        plan: SearchPlan,
        emit: OnEvent,
        track: Sequence[Tracker],
        started: float,
    ) -> None:
        self._study, self._data, self._plan, self._emit = study, data, plan, emit
        self._track, self._started = track, started
        self._before = len(study.trials)
        least, share = RESERVE
        self._end = started + plan.budget - max(least, share * plan.budget)

    def winner(self) -> Trial:
        """Try until the time or the trials are over, or nothing is left that would fit into it.

        Raises `TrainingFailed` where no trial was over in time.
        """
        least, share = CHEAP
        late: list[tuple[str, dict[str, Any]]] = []
        for preset, overrides in space.starts(self._plan.recipes, self._study.task):
            if self._may_go_on() and not self._tried(preset, overrides):
                cheap = space.CHEAP.get(preset) == overrides
                limit = max(least, share * self._plan.budget) if cheap else self._left()
                told = self._attempt(preset, overrides, min(limit, self._left()))
                late += [(preset, overrides)] * (told.state == "out_of_time")
        for preset, overrides in late:  # a slow machine: one model is better than none
            if self._may_go_on() and not self._study.ranked():
                self._attempt(preset, overrides, self._left())
        while self._may_go_on() and (chosen := self._next()) is not None:
            self._attempt(chosen, None, self._most(chosen))
        if ranked := self._study.ranked():
            return ranked[0]
        tried = self._study.trials[self._before :]
        reasons = "; ".join(f"{t.preset}: {t.reason}" for t in tried)
        if tried and all(t.state == "failed" for t in tried):
            raise TrainingFailed(f"No recipe could be trained. {reasons}")
        raise TrainingFailed(
            f"No recipe was over within the budget of {self._plan.budget:.0f} s, so give it more. "
            f"{reasons}".strip()
        )

    def _attempt(self, preset: str, start: dict[str, Any] | None, limit: float) -> Trial:
        """A trial at `start`, or at what the study proposes, within `limit` seconds."""
        trial = self._study.ask(preset, start)
        proposed = {k: v for k, v in trial.params.items() if v is not None}
        overrides = proposed if start is None else start
        recipe = space.with_overrides(preset, overrides)
        called = f"{preset}-{trial.number}"
        with tracked(self._track, f"{self._study.name}-{called}", recipe, ignore) as run:
            listen = self._listener(trial, run, f"{called} {_told(overrides)}", start is None)
            folder = self._study.folder_of(preset, trial.number)
            until = time.monotonic() + limit
            outcome = trials.run(self._data, recipe, folder, seconds=limit, listen=listen)
            if outcome.share is not None and isinstance(recipe, NetworkRecipe):
                epochs = max(1, int(SHORTENED * outcome.share * recipe.epochs))
                left = until - time.monotonic()
                if epochs < recipe.epochs and left > 0:
                    overrides = overrides | {"epochs": epochs}
                    recipe = space.with_overrides(preset, overrides)
                    again = trials.run(self._data, recipe, folder, seconds=left, listen=listen)
                    outcome = Outcome(again.state, outcome.seconds + again.seconds, again.reason)
            told = self._study.tell(preset, trial, overrides, outcome)
            result = {} if told.value is None else {"val_score": told.value}
            run.end(result, failed=told.value is None, state=told.state)
        self._progress(f"{called}: {outcome.state}")
        return told

    def _listener(self, trial: optuna.Trial, run: Run, told: str, prune: bool) -> trials.Listener:
        """Passes a trial's events on, and decides whether it may go on."""
        self._progress(told)
        last_step, last_told = 0, time.monotonic()

        def listen(stage: str, said: Told) -> bool:
            nonlocal last_step, last_told
            run.on_event(stage, **said)
            if time.monotonic() - last_told > 1:
                last_told = time.monotonic()
                self._progress(told)
            value = _running_value(said.get("metrics") or {})
            epoch, epochs = said.get("epoch"), said.get("epochs")
            if not prune or value is None or not epoch or not epochs:
                return True
            if (step := PRUNING_STEPS * epoch // epochs) == last_step:
                return True
            last_step = step
            trial.report(value, step)
            return not trial.should_prune()

        return listen

    def _next(self) -> str | None:
        """The preset to vary: of those in the race for which there is time, the least tried."""
        spent: dict[str, float] = {}
        for preset in self._study.racing():
            tried = [trial for trial in self._study.trials if trial.preset == preset]
            failing = [trial.state for trial in tried[-GIVEN_UP:]] == ["failed"] * GIVEN_UP
            if self._left() > self._needed(preset) and not failing:
                spent[preset] = sum(trial.seconds for trial in tried)
        return min(spent, key=lambda preset: spent[preset], default=None)

    def _needed(self, preset: str) -> float:
        """Seconds that must be left for a variation of it to be worth beginning."""
        usual, network = self._usual(preset)
        return usual * (WORTH_BEGINNING if network else 1.0)

    def _most(self, preset: str) -> float:
        """Seconds that a variation of it may take; a network's epochs follow what is left."""
        usual, network = self._usual(preset)
        return self._left() if network else min(self._left(), max(CHEAP[0], PATIENCE * usual))

    def _usual(self, preset: str) -> tuple[float, bool]:
        """Seconds of its complete trials, the median, and whether it is a network."""
        complete = [trial.seconds for trial in self._study.ranked() if trial.preset == preset]
        return statistics.median(complete), isinstance(load_recipe(preset), NetworkRecipe)

    def _tried(self, preset: str, start: dict[str, Any]) -> bool:
        """Whether an earlier run has brought this start to an end.

        With fewer epochs than it should have is enough where there is no time for all of them.
        """
        full = getattr(space.with_overrides(preset, start), "epochs", 0)
        for trial in self._study.ranked():
            if trial.preset == preset and trial.overrides == start:
                return True
            if trial.preset == preset and trial.overrides | {"epochs": full} == (
                start | {"epochs": full}
            ):
                whole = trial.seconds * full / trial.overrides["epochs"]
                if whole > self._left():
                    return True
        return False

    def _may_go_on(self) -> bool:
        count = len(self._study.trials) - self._before
        return self._left() > 0 and (self._plan.trials is None or count < self._plan.trials)

    def _left(self) -> float:
        return self._end - time.monotonic()

    def _progress(self, message: str) -> None:
        share = (time.monotonic() - self._started) / (self._end - self._started)
        metrics = self._study.headline()
        self._emit("searching", progress=min(1.0, share), metrics=metrics, message=message)


def _running_value(metrics: dict[str, float]) -> float | None:
    """What a training says of itself after an epoch; more is better."""
    if "val_accuracy" in metrics:
        return metrics["val_accuracy"]
    return -metrics["val_loss"] if "val_loss" in metrics else None


def _told(overrides: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in overrides.items())
