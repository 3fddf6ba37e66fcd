"""Writes what a race found into docs/performance.md, between two marks, and its plot beside it.

python -m benchmarks.serve.document benchmarks/results/serve-20261121-120000.json
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.serve.claims import RATE, Summaries
from benchmarks.serve.contestants import INT8, OFFLINE, OURS
from benchmarks.serve.report import cells, claims, markdown_table
from benchmarks.servers import ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "performance.svg"
BEGIN, END = "<!-- results: make performance -->", "<!-- end of results -->"
_OURS, _LIMIT, _OTHERS = "#1b7f5c", "#b8b8b8", "#4a6fa5"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the results of a race into the docs.")
    parser.add_argument("results", type=Path, help="a JSON file that the race has written")
    report = json.loads(parser.parse_args().results.read_text())
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    found = "\n\n".join(section(report))
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{found}\n\n{END}{after}")
    plot(report["networks"]).savefig(PLOT, bbox_inches="tight", metadata={"Date": None})
    print(f"Written to {DOCUMENT.relative_to(ROOT)} and {PLOT.relative_to(ROOT)}.")


def section(report: Mapping[str, Any]) -> Iterator[str]:
    """Paragraphs of Markdown."""
    machine, settings = report["machine"], report["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    yield (
        f"Measured on {report['time'][:10]} on {machine['cores']} cores of {machine['processor']} "
        f"({machine['system']}, Python {machine['python']}), {settings['connections']} "
        f"connections, {settings['rounds']} rounds of {settings['seconds']} s; medians over the "
        f"rounds. Versions: {versions}."
    )
    yield f"![Requests per second]({PLOT.name})"
    for network, summaries in report["networks"].items():
        yield f"### {network}"
        yield markdown_table(cells(summaries))
        yield winners(summaries)
    yield "### What was promised"
    yield "\n".join(f"- {claim}" for claim in claims(report))


def winners(summaries: Summaries) -> str:
    """Who of those that serve is ahead, in each respect."""
    serving = {name: row for name, row in summaries.items() if "p50_ms" in row and row[RATE]}
    if not serving:
        return ""
    least = {"the shortest p99": "p99_ms", "the first prediction": "start_seconds"}
    least["the least memory"] = "memory_mb"
    first = {"the most requests/s": max(serving, key=lambda name: serving[name][RATE])}
    for what, key in least.items():
        first[what] = min(serving, key=lambda name: serving[name][key])
    return "Ahead: " + "; ".join(f"`{name}` with {what}" for what, name in first.items()) + "."


def plot(networks: Mapping[str, Summaries]) -> Figure:
    """Bars of requests/s, a panel a network; lines from the slowest to the fastest round."""
    matplotlib.rcParams["svg.hashsalt"] = "imgcls"  # the same results give the same file
    figure = Figure(figsize=(9, 1.2 + 3.2 * len(networks)), layout="constrained")
    panels = figure.subplots(len(networks), squeeze=False)[:, 0]
    for panel, (network, summaries) in zip(panels, networks.items(), strict=True):
        raced = {name: row for name, row in summaries.items() if RATE in row}
        names = sorted(raced, key=lambda name: raced[name][RATE])
        rates = [raced[name][RATE] for name in names]
        below = [raced[name][RATE] - raced[name]["min"] for name in names]
        above = [raced[name]["max"] - raced[name][RATE] for name in names]
        panel.barh(names, rates, xerr=(below, above), color=[_colour(name) for name in names])
        panel.set_title(network, loc="left")
        panel.set_xlabel("requests per second")
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def _colour(name: str) -> str:
    return _OURS if name in OURS + INT8 else _LIMIT if name in OFFLINE else _OTHERS


if __name__ == "__main__":
    main()
