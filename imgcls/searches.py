"""Searches among recipes: what is asked for, and the leaderboard that is kept of it.

    searches/<name>/search.json       which data it is about
                    study.db          Optuna's own memory: a study for each preset
                    trials/           what each trial answered to the held-out images
                    leaderboard.json  this module's `Leaderboard`, replaced after every trial

A search is called by the name of the model it makes. Whoever searches again under a name goes on
where the last one stopped. The work itself is `training/search.py`.
"""

import re
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imgcls.errors import BadArgument, BadRecipe, Conflict, SearchNotFound
from imgcls.files import check_name, locked, write_atomic
from imgcls.recipes import PRESETS
from imgcls.settings import get_settings

SHORTEST_BUDGET = 10.0
LONGEST_BUDGET = 30 * 86_400.0
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

Budget = Annotated[float, Field(ge=SHORTEST_BUDGET, le=LONGEST_BUDGET)]
"""Seconds."""


class SearchPlan(BaseModel):
    """What a search may do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: Budget
    """Seconds for all trials of this run, those of earlier runs not counted; testing and
    registering the winner is within it too."""
    recipes: tuple[str, ...] = ()
    """Presets to choose among; none are those that suit the data and the budget."""
    trials: int | None = Field(default=None, ge=1, le=100_000)
    """Trials of this run, at most."""
    fresh: bool = False
    """Forget what an earlier search of this name has found."""


class Standing(BaseModel):
    """One trial on the leaderboard."""

    recipe: str
    """The preset that it began as."""
    number: int
    """Of the trial, among those of its preset."""
    settings: dict[str, Any] = {}
    """What was changed, by dotted keys."""
    state: Literal["complete", "pruned", "failed", "out_of_time"]
    reason: str | None = None
    """Why there is no value."""
    value: float | None = None
    """The metric on the validation images."""
    low: float | None = None
    high: float | None = None
    """95% of the bootstrap lies between them."""
    behind: tuple[float, float] | None = None
    """How far the best trial is ahead of this one, in units of the metric: the ends of the
    simultaneous 95% interval. None for the best itself."""
    noise: bool | None = None
    """Whether that interval holds 0: chance alone could have put this trial behind the best."""
    seconds: float = 0.0


class Verdict(BaseModel):
    """The winner beside the default recipe, on test images that took no part in the search."""

    images: int
    winner: float
    default: float
    """The metric of both on these images."""
    ahead: tuple[float, float]
    """By how much the winner is better: the ends of the 95% interval, by paired bootstrap."""
    better: bool
    """Whether all of that interval lies above 0."""
    text: str
    """The same as a sentence."""


class Leaderboard(BaseModel):
    """What a search has found so far."""

    schema_version: Literal[1] = 1
    name: str
    dataset: str
    seed: int
    """Of the splits."""
    metric: Literal["accuracy", "mae"]
    """`mae`, of a regression, is better where it is smaller."""
    images: int
    """Validation images, by which trials are compared."""
    seconds: float = 0.0
    """Spent in trials, all runs together."""
    trials: list[Standing] = []
    """The best first; those without a value last."""
    tag: str | None = None
    """The winner in the model store, once there is one."""
    verdict: Verdict | None = None


def seconds_of(budget: str) -> float:
    """`90`, `90s`, `10m`, `1.5h` or `1d` in seconds. Raises `BadArgument`."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", budget.strip())
    if found is None:
        raise BadArgument(f"The budget {budget[:40]!r} is no length of time; write 90s, 10m or 2h.")
    seconds = float(found[1]) * _UNITS[found[2]]
    if not SHORTEST_BUDGET <= seconds <= LONGEST_BUDGET:
        raise BadArgument("The budget must lie between 10 seconds and 30 days.")
    return seconds


class SearchFolder:
    """A search's folder. Every call reads it afresh."""

    def __init__(self, name: str, home: Path | None = None) -> None:
        """Raises `BadArgument` where `name` cannot be one."""
        self.name = check_name(name, "search's name")
        self.path = (home or get_settings().home) / "searches" / name

    def check(self, plan: SearchPlan, dataset: str, seed: int) -> None:
        """Raises `BadRecipe` for a preset that does not exist, and `Conflict` where an earlier
        search of this name was about other data."""
        if unknown := [preset for preset in plan.recipes if preset not in PRESETS]:
            raise BadRecipe(
                f"There is no recipe {unknown[0][:80]!r}; there are: {', '.join(PRESETS)}."
            )
        about = self._about()
        if about is not None and about != _About(dataset=dataset, seed=seed) and not plan.fresh:
            raise Conflict(
                f"The search {self.name} is about {about.dataset} with seed {about.seed}: take "
                "another name, or let it begin afresh."
            )

    def begin(self, plan: SearchPlan, dataset: str, seed: int) -> None:
        """Make the folder, or go on with what is there; raises what `check` does."""
        with locked(self.path.parent / "begin.lock"):
            self.check(plan, dataset, seed)
            if plan.fresh or self._about() is None:
                shutil.rmtree(self.path, ignore_errors=True)
            about = _About(dataset=dataset, seed=seed)
            write_atomic(self.path / "search.json", about.model_dump_json())

    def leaderboard(self) -> Leaderboard:
        """Raises `SearchNotFound`, or `Conflict` where the file is damaged."""
        try:
            return Leaderboard.model_validate_json((self.path / "leaderboard.json").read_bytes())
        except FileNotFoundError:
            raise SearchNotFound(
                f"There is no search {self.name!r} with a result; start one first."
            ) from None
        except ValidationError as err:
            raise Conflict(
                f"The leaderboard of {self.name} is damaged; search again under this name."
            ) from err

    def save(self, leaderboard: Leaderboard) -> None:
        write_atomic(self.path / "leaderboard.json", leaderboard.model_dump_json(indent=2))

    def _about(self) -> "_About | None":
        """None where there is nothing to go on with."""
        try:
            return _About.model_validate_json((self.path / "search.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None


class _About(BaseModel):
    """`search.json`."""

    schema_version: Literal[1] = 1
    dataset: str
    seed: int
