"""From the rounds to a report: medians, tables, and what it was measured on."""

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.serve.claims import RATE, Claim, Summaries, judge
from imgcls.settings import usable_cores

PACKAGES = (
    *("imgcls", "bentoml", "onnxruntime", "torch", "torchvision", "litserve", "fastapi"),
    *("starlette", "uvicorn", "pillow", "simplejpeg"),
)
_MEDIANS = ("p50_ms", "p99_ms", "start_seconds", "memory_mb")
_COLUMNS = ("", "requests/s", "min", "max", "p50 ms", "p99 ms", "start s", "MB", "errors")

Rounds = Mapping[str, Sequence[Mapping[str, Any]]]
"""By contestant, what it did in each round."""


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds of whatever was measured; errors are added up."""
    row: dict[str, Any] = {}
    rates = [result["rate"] for result in rounds if "rate" in result]
    if rates:
        row |= {RATE: statistics.median(rates), "min": min(rates), "max": max(rates)}
    for key in _MEDIANS:
        if key in rounds[0]:
            row[key] = statistics.median(result[key] for result in rounds)
    if "errors" in rounds[0]:
        row["errors"] = sum(result["errors"] for result in rounds)
    return row | {"rounds": list(rounds)}


def report(networks: Mapping[str, Rounds], settings: Mapping[str, Any]) -> dict[str, Any]:
    """All that is written to the results, ready for JSON."""
    summaries: dict[str, Summaries] = {
        network: {name: summary(rows) for name, rows in rounds.items()}
        for network, rounds in networks.items()
    }
    return {
        "benchmark": "serve",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": usable_cores(),
            "processor": _processor(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "settings": dict(settings),
        "networks": summaries,
        "claims": [asdict(claim) for claim in judge(summaries)],
    }


def claims(report: Mapping[str, Any]) -> list[Claim]:
    return [Claim(**claim) for claim in report["claims"]]


def cells(summaries: Summaries) -> list[list[str]]:
    """A table: the heads, then a row for each contestant, the fastest first."""
    order = sorted(summaries, key=lambda name: summaries[name].get(RATE, 0.0), reverse=True)
    return [list(_COLUMNS), *([name, *_figures(summaries[name])] for name in order)]


def text_table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *others = rows
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *others))


def _figures(row: Mapping[str, Any]) -> list[str]:
    keys = {RATE: 1, "min": 1, "max": 1, "p50_ms": 1, "p99_ms": 1, "start_seconds": 2}
    keys |= {"memory_mb": 0, "errors": 0}
    return [f"{row[key]:,.{digits}f}" if key in row else "" for key, digits in keys.items()]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or os.uname().machine
