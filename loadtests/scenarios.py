"""The scenarios and what each may cost: one table that the runner, Locust and the verdict read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

User = Literal["Switcher", "Trainer", "Attacker"]
"""Kinds of users beside the callers, who only ask for predictions; see `locustfile.py`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What good clients must get. A run that exceeds one fails."""

    p99_ms: float = 2000.0
    """Of predictions, for each size of picture."""
    error_rate: float = 0.0
    """Share of the good clients' requests that may fail."""
    growth_mb: float | None = None
    """MiB by which the service's memory may grow after the first quarter of the run."""


@dataclass(frozen=True, slots=True)
class Scenario:
    about: str
    limits: Limits = Limits()
    beside: dict[User, int] = field(default_factory=dict)
    """Users beside the callers."""
    peak: int = 1
    """Times as many callers in the middle third of the run."""
    own_store: bool = False
    """Leaves datasets and models behind, so it runs against a service of its own alone."""


SCENARIOS: dict[str, Scenario] = {
    "steady": Scenario("pictures of all sizes, without pause"),
    "spike": Scenario(
        "eight times the callers in the middle third",
        Limits(p99_ms=8000, error_rate=0.001),
        peak=8,
    ),
    "soak": Scenario(
        "mixed, and the service's memory must not grow; meant for 20 minutes or more",
        Limits(p99_ms=4000, growth_mb=64),
        beside={"Switcher": 1, "Trainer": 1},
        own_store=True,
    ),
    "set": Scenario("one user changes the active model all the time", beside={"Switcher": 1}),
    "mixed": Scenario(
        "one user trains models all the time, one changes the active model",
        Limits(p99_ms=4000),
        beside={"Switcher": 1, "Trainer": 1},
        own_store=True,
    ),
    "hostile": Scenario(
        "some clients send garbage, cut or slow bodies, wrong types, or leave half-way",
        Limits(p99_ms=4000),
        beside={"Attacker": 4},
    ),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run has measured."""

    predictions: int
    good_requests: int
    good_failures: int
    p99_ms: float
    hostile_requests: int
    hostile_failures: int
    """Hostile requests that got a 5xx other than 503, or no answer."""
    memory_mb: Sequence[float] = ()
    """Resident memory of the service in even steps, without that of trainings; empty where it could
    not be read."""

    @property
    def growth_mb(self) -> float | None:
        """From the second quarter, when caches are warm, to the last one."""
        quarter = len(self.memory_mb) // 4
        if quarter == 0:
            return None
        warm, last = self.memory_mb[quarter : 2 * quarter], self.memory_mb[-quarter:]
        return median(last) - median(warm)


def faults(figures: Figures, scenario: Scenario) -> list[str]:
    """Why the run has failed, in sentences; empty where it has passed."""
    limits = scenario.limits
    found = []
    if not figures.predictions:
        found.append("no prediction was made")
    if figures.good_failures > limits.error_rate * figures.good_requests:
        found.append(
            f"{figures.good_failures} of {figures.good_requests} requests of good clients failed"
        )
    if figures.p99_ms > limits.p99_ms:
        found.append(f"p99 of predictions is {figures.p99_ms:.0f} ms, above {limits.p99_ms:.0f} ms")
    if figures.hostile_failures:
        found.append(f"{figures.hostile_failures} hostile requests were not refused as they must")
    if "Attacker" in scenario.beside and not figures.hostile_requests:
        found.append("no hostile request was made")
    growth = figures.growth_mb
    if limits.growth_mb is not None and growth is not None and growth > limits.growth_mb:
        found.append(f"memory grew by {growth:.0f} MiB, more than {limits.growth_mb:.0f} MiB")
    return found
