"""The race, from the command line.

    python -m benchmarks.serve [--network resnet18 ...] [--only imgcls bentoml ...] [--data FILE]

The results are written after every round, so that a race that is broken off has some.
"""

import argparse
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.serve.claims import RATE
from benchmarks.serve.contestants import NAMES, PHOTO_NETWORKS, TINY
from benchmarks.serve.race import Race, Row, Settings
from benchmarks.serve.report import cells, claims, report, text_table
from benchmarks.servers import ROOT, stop_on_sigterm

RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    arguments = _arguments()
    stop_on_sigterm()
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"serve-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    networks: dict[str, dict[str, list[Row]]] = {}
    for network in arguments.network:
        rounds = networks[network] = {}
        with tempfile.TemporaryDirectory(prefix="race-") as scratch:
            race = Race(network, _settings(arguments), Path(scratch) / network)
            for number in range(arguments.rounds):
                print(f"{network}, round {number + 1} of {arguments.rounds}", flush=True)
                for name, row in race.round().items():
                    rounds.setdefault(name, []).append(row)
                target.write_text(json.dumps(report(networks, _shown(arguments)), indent=2))
    result = json.loads(target.read_text())
    for network, summaries in result["networks"].items():
        print(f"\n{network}\n{text_table(cells(summaries))}")
    print("\n" + "\n".join(str(claim) for claim in claims(result)))
    print(f"Written to {target.relative_to(ROOT)}.")
    _insist(result["networks"], arguments.at_least)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="imgcls beside other ways to serve the same network on the same cores."
    )
    parser.add_argument(
        "--network",
        nargs="+",
        choices=(TINY, *PHOTO_NETWORKS),
        default=[*PHOTO_NETWORKS, TINY],
        help="what is served: all of them, if left out",
    )
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=[], metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument("--int8", action="store_true", help="imgcls in 8 bits races too")
    parser.add_argument("--data", type=Path, help="send the pictures of this folder or zip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10, help="under load, in each round")
    parser.add_argument("--warm-up", type=int, default=3, help="seconds before that")
    parser.add_argument("--connections", type=int, default=16, help="requests under way at once")
    parser.add_argument("--pictures", type=int, default=64, help="different ones, sent in turn")
    parser.add_argument(
        "--at-least",
        type=float,
        default=0.0,
        help="fail where imgcls has fewer times the requests/s of BentoML's own batching",
    )
    return parser.parse_args()


def _settings(arguments: argparse.Namespace) -> Settings:
    return Settings(
        data=arguments.data,
        only=tuple(arguments.only),
        int8=arguments.int8,
        pictures=arguments.pictures,
        connections=arguments.connections,
        seconds=arguments.seconds,
        warm_up=arguments.warm_up,
    )


def _shown(arguments: argparse.Namespace) -> dict[str, Any]:
    data = arguments.data.name if arguments.data else None
    return {**vars(arguments), "data": data}


def _insist(networks: dict[str, Any], at_least: float) -> None:
    """Raises `SystemExit` where a request was not answered, or the ratio is too low."""
    for network, summaries in networks.items():
        for name, summary in summaries.items():
            if summary.get("errors"):
                raise SystemExit(
                    f"{network}: {name} failed to answer {summary['errors']} requests."
                )
        if at_least and {"imgcls", "bentoml"} <= summaries.keys():
            ratio = summaries["imgcls"][RATE] / summaries["bentoml"][RATE]
            if ratio < at_least:
                raise SystemExit(f"{network}: the ratio is {ratio:.2f}, below {at_least:g}.")


if __name__ == "__main__":
    main()
