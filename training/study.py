"""The memory of a search: all its trials on disk, in their order, and the leaderboard made of them.

Optuna keeps a study for each preset in one SQLite file; beside it lies a folder for each trial with
its answers to the held-out images. A killed search is found again as it was.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import TrialState

from imgcls.data import Dataset
from imgcls.errors import Conflict
from imgcls.recipes import DEFAULT_RECIPE, Recipe, load_recipe
from imgcls.searches import Leaderboard, SearchFolder, Standing, Verdict
from training import space, standings, trials
from training.evaluate import log_loss
from training.fitted import Floats
from training.trials import Outcome, State

PRUNING_STEPS = 10
"""Times at which a running trial is held against earlier ones of its preset."""
_TPE_STARTS = 5
"""Trials of a preset that are drawn at random before TPE (Bergstra et al. 2011) proposes."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A trial that is over."""

    preset: str
    number: int
    overrides: dict[str, Any]
    folder: Path
    state: State = "failed"
    reason: str | None = None
    seconds: float = 0.0
    value: float | None = None
    """Mean of `scores`; only what is complete has one."""
    log_loss: float = 0.0
    """On the validation images; decides between equal accuracies."""
    scores: standings.Scores = field(default_factory=lambda: np.empty(0))
    """On the validation images."""

    @property
    def recipe(self) -> Recipe:
        return space.with_overrides(self.preset, self.overrides)

    @property
    def is_default(self) -> bool:
        """The default recipe, if perhaps with fewer epochs than it asks for."""
        return self.preset == DEFAULT_RECIPE and set(self.overrides) <= {"epochs"}


class Study:
    """All trials of the search in `folder` on `data`."""

    def __init__(self, folder: SearchFolder, data: Dataset) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name = folder.name
        self._folder, self._data = folder, data
        self.task: str = data.task
        self._share = self.task == "classification"
        self._metric: Literal["accuracy", "mae"] = "accuracy" if self._share else "mae"
        self._truth = {split: data.targets(data.rows(split)) for split in ("val", "test")}
        self._storage = optuna.storages.RDBStorage(f"sqlite:///{folder.path / 'study.db'}")
        self._studies: dict[str, optuna.Study] = {}
        self.trials: list[Trial] = []
        for preset in optuna.get_all_study_names(self._storage):
            study = self._of(preset)
            for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                study.tell(left.number, state=TrialState.FAIL)  # of a run that was killed
            self.trials += [self._remembered(preset, trial) for trial in study.trials]

    def ask(self, preset: str, start: dict[str, Any] | None = None) -> optuna.Trial:
        """A new trial of a preset: at `start`, or where TPE proposes. Raises `Conflict`."""
        study, dimensions = self._of(preset), space.space(load_recipe(preset))
        try:
            if start is not None:
                study.enqueue_trial(space.point(space.with_overrides(preset, start), dimensions))
            return study.ask(dimensions)
        except ValueError as err:  # Optuna's, where a dimension has other choices than before
            raise Conflict(
                f"The search {self.name} was begun by another version of imgcls; take another "
                "name, or let it begin afresh."
            ) from err

    def tell(
        self, preset: str, trial: optuna.Trial, overrides: dict[str, Any], outcome: Outcome
    ) -> Trial:
        """Remember how a trial ended; the leaderboard and the kept graphs follow."""
        study = self._of(preset)
        said = {"overrides": overrides, "state": outcome.state, "reason": outcome.reason}
        for key, value in (said | {"seconds": outcome.seconds}).items():
            trial.set_user_attr(key, value)
        if outcome.state == "complete":
            answers = np.load(self.folder_of(preset, trial.number) / "val.npy")
            recipe = space.with_overrides(preset, overrides)
            study.tell(trial, float(self._scores(recipe, answers, "val").mean()))
        else:
            pruned = outcome.state == "pruned"
            study.tell(trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)
        told = self._remembered(preset, study.trials[trial.number])
        self.trials.append(told)
        for beaten in self.ranked()[1:]:
            trials.forget_graph(beaten.folder)
        self.save()
        return told

    def folder_of(self, preset: str, number: int) -> Path:
        return self._folder.path / "trials" / f"{preset}-{number}"

    def ranked(self) -> list[Trial]:
        """The complete trials, the best first."""
        complete = [trial for trial in self.trials if trial.value is not None]
        return sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.log_loss))

    def racing(self) -> list[str]:
        """Presets that are not behind the best by more than chance."""
        rows = zip(self.ranked(), self._gaps(self.ranked()), strict=True)
        return list(dict.fromkeys(trial.preset for trial, (low, _) in rows if low <= 0))

    def headline(self) -> dict[str, float]:
        """What progress shows."""
        shown = {"trials": float(len(self.trials))}
        if ranked := self.ranked():
            shown[self._metric] = abs(ranked[0].value or 0.0)
        return shown

    def verdict(self, winner: Trial) -> Verdict | None:
        """The winner beside the default recipe, on the test images; None where that is missing."""
        defaults = [trial for trial in self.ranked() if trial.is_default]
        if not defaults:
            return None
        default = max(defaults, key=lambda trial: getattr(trial.recipe, "epochs", 0))
        first, second = (
            self._scores(trial.recipe, np.load(trial.folder / "test.npy"), "test")
            for trial in (winner, default)
        )
        ahead = standings.behind_best([first, second], share=self._share)[1]
        found = Verdict(
            images=len(first),
            winner=abs(float(first.mean())),
            default=abs(float(second.mean())),
            ahead=ahead,
            better=ahead[0] > 0,
            text="",
        )
        named = f"the default recipe, {DEFAULT_RECIPE}"
        if cut := default.overrides.get("epochs"):
            named += f" (with {cut} epochs, for which there was time)"
        if winner is default:
            text = f"No recipe was better than {named}, on the validation images."
        else:
            much = "better than" if found.better else "not better beyond chance than"
            text = (
                f"{winner.preset}-{winner.number} is {much} {named}, on {len(first):,} test "
                f"images: {self._metric} {found.winner:.4f} against {found.default:.4f}, ahead by "
                f"{ahead[0]:+.4f} to {ahead[1]:+.4f} (95%)."
            )
        return found.model_copy(update={"text": text})

    def save(self, tag: str | None = None, verdict: Verdict | None = None) -> None:
        """Write the leaderboard."""
        self._folder.save(
            Leaderboard(
                name=self._folder.name,
                dataset=self._data.tag,
                seed=self._data.seed,
                metric=self._metric,
                images=len(self._truth["val"]),
                seconds=round(sum(trial.seconds for trial in self.trials), 1),
                trials=list(self._standings()),
                tag=tag,
                verdict=verdict,
            )
        )

    def _standings(self) -> Iterable[Standing]:
        ranked = self.ranked()
        gaps = self._gaps(ranked)
        for trial in [*ranked, *(trial for trial in self.trials if trial.value is None)]:
            row = Standing(
                recipe=trial.preset,
                number=trial.number,
                settings=trial.overrides,
                state=trial.state,
                reason=trial.reason,
                seconds=trial.seconds,
            )
            if trial.value is not None:
                place = ranked.index(trial)
                ends = standings.interval(trial.scores, share=self._share)
                row.value = abs(trial.value)
                row.low, row.high = sorted(map(abs, ends))
                if place:
                    row.behind, row.noise = gaps[place], gaps[place][0] <= 0
            yield row

    def _gaps(self, ranked: list[Trial]) -> list[tuple[float, float]]:
        if not ranked:
            return []
        return standings.behind_best([trial.scores for trial in ranked], share=self._share)

    def _scores(self, recipe: Recipe, answers: Floats, split: str) -> standings.Scores:
        threshold = recipe.threshold if len(self._data.labels) == 2 else None
        return standings.scores(answers, self._truth[split], threshold=threshold)

    def _remembered(self, preset: str, trial: optuna.trial.FrozenTrial) -> Trial:
        said = trial.user_attrs
        found = Trial(
            preset,
            trial.number,
            said.get("overrides", {}),
            self.folder_of(preset, trial.number),
            said.get("state", "failed"),
            said.get("reason", "It was interrupted."),
            said.get("seconds", 0.0),
        )
        if trial.state != TrialState.COMPLETE or not (found.folder / "val.npy").is_file():
            return found
        answers = np.load(found.folder / "val.npy")
        scores = self._scores(found.recipe, answers, "val")
        loss = 0.0 if answers.ndim == 1 else log_loss(answers, self._truth["val"])
        return replace(found, value=float(scores.mean()), log_loss=loss, scores=scores)

    def _of(self, preset: str) -> optuna.Study:
        if preset not in self._studies:
            seed = self._data.seed + len(self.trials)  # a later run is to draw other points
            self._studies[preset] = optuna.create_study(
                storage=self._storage,
                study_name=preset,
                load_if_exists=True,
                direction="maximize",
                sampler=optuna.samplers.TPESampler(n_startup_trials=_TPE_STARTS, seed=seed),
                pruner=optuna.pruners.MedianPruner(
                    n_startup_trials=2, n_warmup_steps=PRUNING_STEPS // 3
                ),
            )
        return self._studies[preset]
