"""What imgcls promises about its speed, held against a report's figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.serve.contestants import (
    EMPTY,
    INT8,
    OFFLINE,
    OURS,
    QUICK,
    STARLETTE,
    TINY,
    TORCH_PEERS,
)

RATE = "requests_per_second"

Summaries = dict[str, dict[str, Any]]
"""By contestant, as `report.summary` makes them."""


@dataclass(frozen=True, slots=True)
class Claim:
    network: str
    text: str
    value: float
    bound: float
    at_least: bool
    """Whether the bound is the least or the most that the value may be."""

    @property
    def holds(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return f"{self.network}: {self.text}: {self.value:.2f} ({sign} {self.bound:g}) {verdict}"


def judge(networks: dict[str, Summaries]) -> list[Claim]:
    """Every claim whose contestants took part, in a fixed order."""
    resnet, efficientnet, tiny = (
        networks.get(name, {}) for name in ("resnet18", "efficientnet_b0", TINY)
    )
    return [
        *_rates("resnet18", resnet, OURS, OFFLINE, 0.90),
        *_rates("resnet18", resnet, OURS, TORCH_PEERS, 1.3),
        *_rates("resnet18", resnet, INT8, TORCH_PEERS, 1.9),
        *_latency("resnet18", resnet, 2.5),
        *_start("resnet18", resnet, "imgcls", (EMPTY,), 1.2),
        *_start("resnet18", resnet, QUICK, (EMPTY,), 1.2),
        *_start("resnet18", resnet, QUICK, TORCH_PEERS, 0.35),
        *_memory("resnet18", resnet, 500),
        *_rates("efficientnet_b0", efficientnet, OURS, TORCH_PEERS, 2.0),
        *_rates(TINY, tiny, ("imgcls",), ("bentoml",), 2.5),
        *_rates(TINY, tiny, ("imgcls",), ("litserve",), 1.3),
        *_rates(TINY, tiny, ("imgcls",), (STARLETTE,), 0.5),
        *(claim for name, summaries in networks.items() for claim in _errors(name, summaries)),
    ]


def fastest(summaries: Summaries, names: Sequence[str]) -> str | None:
    """Who of `names` answers the most requests/s, if any took part and answered at all."""
    there = [name for name in names if name in summaries and summaries[name][RATE] > 0]
    return max(there, key=lambda name: summaries[name][RATE], default=None)


def _rates(
    network: str, summaries: Summaries, ours: Sequence[str], theirs: Sequence[str], bound: float
) -> Iterator[Claim]:
    a, b = fastest(summaries, ours), fastest(summaries, theirs)
    if a and b:
        ratio = summaries[a][RATE] / summaries[b][RATE]
        yield Claim(network, f"requests/s, {a} / {b}", ratio, bound, at_least=True)


def _latency(network: str, summaries: Summaries, bound: float) -> Iterator[Claim]:
    if a := fastest(summaries, OURS):
        ratio = summaries[a]["p99_ms"] / summaries[a]["p50_ms"]
        yield Claim(network, f"{a}, p99 / p50", ratio, bound, at_least=False)


def _start(
    network: str, summaries: Summaries, ours: str, others: Sequence[str], bound: float
) -> Iterator[Claim]:
    there = [name for name in others if name in summaries]
    if ours in summaries and there:
        soonest = min(there, key=lambda name: summaries[name]["start_seconds"])
        ratio = summaries[ours]["start_seconds"] / summaries[soonest]["start_seconds"]
        text = f"start to first prediction, {ours} / {soonest}"
        yield Claim(network, text, ratio, bound, at_least=False)


def _memory(network: str, summaries: Summaries, bound: float) -> Iterator[Claim]:
    if there := [name for name in ("imgcls-2", f"{QUICK}-2") if name in summaries]:
        memory = max(summaries[name]["memory_mb"] for name in there)
        yield Claim(network, "MB of two workers together", memory, bound, at_least=False)


def _errors(network: str, summaries: Summaries) -> Iterator[Claim]:
    ours = [summaries[name]["errors"] for name in OURS if name in summaries]
    if ours:
        yield Claim(network, "errors of imgcls", sum(ours), 0, at_least=False)
