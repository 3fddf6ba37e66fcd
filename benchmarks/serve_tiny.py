"""Requests per second for small images: imgcls beside BentoML's own adaptive batching.

    python -m benchmarks.serve_tiny [--data pets32.zip] [--rounds 5] [--seconds 5]

Both servers hold the same ONNX file, one worker each, and are up all the time; only one is under
load at a time (an idle one costs nothing that can be measured), in rounds A B A B so that a noisy
neighbour hits both. Every round warms up first. Before the rounds each side answers all the images
to as many clients at once as wrk will have connections, and every answer is compared with what the
model itself says.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import pictures, tiny
from benchmarks.servers import ROOT, serving, stop_on_sigterm

BOUNDARY = "imgcls-benchmark-boundary"
FIELD = "images"
PATH = "/predict"
SCRIPT = Path(__file__).with_name("post.lua")
RESULTS = Path(__file__).with_name("results")
TOLERANCE = 0.02
"""Of probabilities: the two sides' JPEG decoders may differ by a step of brightness."""

Answer = Callable[[Any], list[float]]


@dataclass(frozen=True, slots=True)
class Side:
    name: str
    url: str
    probabilities: Answer
    """From the decoded JSON answer to the probabilities of its first image."""


@dataclass(frozen=True, slots=True)
class Round:
    """What wrk says about one run; times in milliseconds, from sending to the whole answer."""

    requests: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    bad_status: int
    broken: int
    timeouts: int

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def faults(self) -> int:
        return self.bad_status + self.broken + self.timeouts


def main() -> None:
    arguments = _arguments()
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed: apt-get install wrk (or brew install wrk).")
    stop_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="serve-tiny-") as scratch:
        report = _measure(arguments, wrk, Path(scratch))
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"serve_tiny-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    target.write_text(json.dumps(report, indent=2))
    print(_table(report))
    print(f"Written to {target.relative_to(ROOT)}.")
    if report["ratio"] < arguments.at_least:
        raise SystemExit(f"The ratio is below the {arguments.at_least:g} that were asked for.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Requests per second for small images, beside BentoML's own batching.",
    )
    parser.add_argument(
        "--data", type=Path, help="train the model on this dataset, send its images"
    )
    parser.add_argument("--side", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each side")
    parser.add_argument("--seconds", type=int, default=5, help="length of a round")
    parser.add_argument("--warm-up", type=int, default=2, help="seconds before each round")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--wrk-threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=64, help="different images, sent in turn")
    parser.add_argument("--at-least", type=float, default=0.0, help="fail below this ratio")
    return parser.parse_args()


def _measure(arguments: argparse.Namespace, wrk: str, scratch: Path) -> dict[str, Any]:
    home = scratch / "bentoml"
    model = (
        tiny.from_data(home, arguments.data, side=arguments.side)
        if arguments.data
        else (tiny.untrained(home, side=arguments.side))
    )
    if arguments.data:
        files = pictures.read(arguments.data, arguments.images)
    else:
        files = pictures.cut(arguments.side, arguments.side, arguments.images)
    truths = tiny.answers(model, files)
    _write_bodies(scratch, files)
    threads = str(len(os.sched_getaffinity(0)))
    ours = {"BENTOML_HOME": str(home), "IMGCLS_THREADS": threads, "IMGCLS_WORKERS": "1"}
    peers = {
        "BENTOML_HOME": str(scratch / "peer"),
        "PEER_MODEL": str(model.graph),
        "PEER_SIDE": str(arguments.side),
        "PEER_THREADS": threads,
    }
    with (
        serving("service:ImageClassifier", env=ours) as imgcls,
        serving("benchmarks.peers.bento_tutorial:BentoTutorial", env=peers) as peer,
    ):
        labels = model.card.labels
        sides = [
            Side(
                "imgcls",
                imgcls.url,
                lambda body: [body["predictions"][0]["probabilities"][label] for label in labels],
            ),
            Side("bento_tutorial", peer.url, lambda body: body[0]),
        ]
        for side in sides:
            asyncio.run(_verify(side, files, truths, arguments.connections))
        rounds: dict[str, list[Round]] = {side.name: [] for side in sides}
        for number in range(arguments.rounds):
            for side in sides:
                _load(wrk, side, scratch, len(files), arguments, arguments.warm_up)
                result = _load(wrk, side, scratch, len(files), arguments, arguments.seconds)
                rounds[side.name].append(result)
                print(
                    f"round {number + 1}: {side.name:<14} {result.rate:8.1f} requests/s, "
                    f"p50 {result.p50_ms:.1f} ms, p99 {result.p99_ms:.1f} ms",
                    flush=True,
                )
    return _report(arguments, rounds, model.card.tag)


def _write_bodies(folder: Path, files: list[bytes]) -> None:
    """One multipart body an image, ready to be sent by wrk."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{FIELD}"; filename="image.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()
    for number, file in enumerate(files):
        (folder / f"{number}.body").write_bytes(head + file + tail)


async def _verify(side: Side, files: list[bytes], truths: np.ndarray, clients: int) -> None:
    """Send every image from `clients` clients at once; every answer must be the model's own."""
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=side.url, limits=limits, timeout=60) as client:

        async def ask(number: int) -> None:
            sent = {FIELD: ("image.jpg", files[number], "image/jpeg")}
            response = await client.post(PATH, files=sent)
            if response.status_code != 200:
                raise SystemExit(f"{side.name} answers {response.status_code}: {response.text}")
            got = np.array(side.probabilities(response.json()))
            if got.shape != truths[number].shape or abs(got - truths[number]).max() > TOLERANCE:
                raise SystemExit(f"{side.name} gives image {number} a wrong answer: {got}")

        await ask(0)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                for number in range(len(files)):
                    group.create_task(ask(number))


def _load(
    wrk: str, side: Side, bodies: Path, count: int, arguments: argparse.Namespace, seconds: int
) -> Round:
    """One run of wrk. Any answer but a 2xx, and any broken connection, ends the benchmark."""
    command = [wrk, f"-c{arguments.connections}", f"-t{arguments.wrk_threads}", f"-d{seconds}s"]
    command += ["--timeout", "10s", "-s", str(SCRIPT), side.url]
    command += ["--", str(bodies), str(count), BOUNDARY, PATH]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    line = next(line for line in printed.splitlines() if line.startswith("JSON "))
    result = Round(**json.loads(line.removeprefix("JSON ")))
    if result.faults or not result.requests:
        raise SystemExit(f"{side.name} failed under load:\n{printed}")
    return result


def _report(
    arguments: argparse.Namespace, rounds: dict[str, list[Round]], tag: str
) -> dict[str, Any]:
    sides = {}
    for name, results in rounds.items():
        rates = [result.rate for result in results]
        p50 = statistics.median(result.p50_ms for result in results)
        p99 = statistics.median(result.p99_ms for result in results)
        sides[name] = {
            "requests_per_second": statistics.median(rates),
            "min": min(rates),
            "max": max(rates),
            "p50_ms": p50,
            "p99_ms": p99,
            "p99_over_p50": p99 / p50,
            "rounds": [asdict(result) | {"rate": result.rate} for result in results],
        }
    ours, peer = (sides[name]["requests_per_second"] for name in rounds)
    return {
        "benchmark": "serve_tiny",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "processor": _processor(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "settings": {key: str(value) for key, value in vars(arguments).items()},
        "model": tag,
        "sides": sides,
        "ratio": ours / peer,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _table(report: dict[str, Any]) -> str:
    head = f"{'':<16}{'requests/s':>12}{'min':>9}{'max':>9}{'p50 ms':>9}{'p99 ms':>9}{'p99/p50':>9}"
    lines = [head]
    for name, side in report["sides"].items():
        lines.append(
            f"{name:<16}{side['requests_per_second']:>12.1f}{side['min']:>9.1f}{side['max']:>9.1f}"
            f"{side['p50_ms']:>9.1f}{side['p99_ms']:>9.1f}{side['p99_over_p50']:>9.2f}"
        )
    lines.append(f"{'ratio':<16}{report['ratio']:>12.2f}   (of the medians over the rounds)")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
