"""How much a running training slows predictions: requests/s, p50 and p99 without it and with it.

    python -m benchmarks.predict_during_fit [--rounds 4] [--seconds 4] [--connections 4]

The service trains the default `cnn` in a process of its own, as `/fit` starts it. Rounds alternate:
the training is stopped (SIGSTOP) in one and goes on in the next, so that both kinds meet the same
neighbours. Fails above `--at-most`, the ratio of the p99s, and below `--at-least`, the share of the
requests/s that is kept.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import models, pictures
from benchmarks.servers import serving, stop_on_sigterm
from benchmarks.swap_under_load import exchange, predict_request
from imgcls import Client

SIDE = 64
CLASSES, PER_CLASS = 3, 400


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of predictions during a training.")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each kind")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a round")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--at-most", type=float, default=float("inf"), help="ratio of the p99s")
    parser.add_argument("--at-least", type=float, default=0.0, help="share of the requests/s")
    arguments = parser.parse_args()
    stop_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="fit-") as scratch:
        home = Path(scratch) / "bentoml"
        models.cnn(home, side=SIDE)
        data = _dataset(Path(scratch) / "pictures")
        env = {"BENTOML_HOME": str(home)}
        with serving("service:ImageClassifier", env=env) as server, Client(server.url) as client:
            job = _training(client, data)
            try:
                times = _measure(server.url, _process(home, job), arguments)
            finally:  # a training outlives its server, and this one could not end by itself
                client.cancel(job)
    kept, ratio = _report(times)
    if kept < arguments.at_least:
        raise SystemExit(f"{kept:.0%} of the requests/s are kept, below {arguments.at_least:.0%}.")
    if ratio > arguments.at_most:
        raise SystemExit(f"The p99s are {ratio:.2f} to 1, above {arguments.at_most:g}.")


def _dataset(folder: Path) -> Path:
    for number in range(CLASSES):
        label = folder / f"class-{number}"
        label.mkdir(parents=True)
        for index, file in enumerate(pictures.cut(SIDE, SIDE, PER_CLASS, seed=number)):
            (label / f"{index:04d}.jpg").write_bytes(file)
    return folder


def _training(client: Client, data: Path) -> str:
    """Start a training that outlasts the measurement; returns its id when the epochs have begun."""
    dataset = client.upload(data, "pictures").tag
    endless = {"epochs": 2000, "early_stop.patience": 0, "image_size": SIDE}
    job = client.fit(dataset, "pictures", overrides=endless).job
    for now in client.follow(job.id):
        if now.over:
            raise SystemExit(f"The training ended: {now.reason}")
        if now.epoch:
            break
    return job.id


def _process(home: Path, job: str) -> int:
    told = json.loads((home / "imgcls" / "jobs" / job / "process.json").read_bytes())
    return int(told["pid"])


def _measure(url: str, training: int, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each request, by whether the training's process group was running."""
    requests = [predict_request(file) for file in pictures.cut(SIDE, SIDE, 32)]
    times: dict[str, list[float]] = {"alone": [], "during a fit": []}
    for _ in range(arguments.rounds):
        for kind, sign in (("alone", signal.SIGSTOP), ("during a fit", signal.SIGCONT)):
            os.killpg(training, sign)
            time.sleep(0.5)
            times[kind] += asyncio.run(
                _load(url, requests, arguments.connections, arguments.seconds)
            )
    return times


async def _load(url: str, requests: list[bytes], connections: int, seconds: float) -> list[float]:
    host, port = url.removeprefix("http://").split(":")
    end = time.monotonic() + seconds
    times: list[float] = []

    async def ask(number: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while (sent := time.monotonic()) < end:
            number = (number + 1) % len(requests)
            status, body = await exchange(reader, writer, requests[number])
            if status != 200:
                raise SystemExit(f"A prediction answered {status}: {body[:200]!r}")
            times.append(time.monotonic() - sent)
        writer.close()

    await asyncio.gather(*(ask(number) for number in range(connections)))
    return times


def _report(times: dict[str, list[float]]) -> tuple[float, float]:
    """Print both kinds; returns the share of requests/s that is kept, and the ratio of the p99s.

    Both kinds had the same time.
    """
    cuts = {kind: statistics.quantiles(values, n=100) for kind, values in times.items()}
    for kind, cut in cuts.items():
        print(
            f"{kind:<14}{len(times[kind]):>8} predictions   p50 {cut[49] * 1000:6.1f} ms   "
            f"p99 {cut[98] * 1000:6.1f} ms"
        )
    alone, fit = cuts.values()
    kept = len(times["during a fit"]) / len(times["alone"])
    ratio = fit[98] / alone[98]
    print(f"requests/s kept {kept:.0%}; ratio: p50 {fit[49] / alone[49]:.2f}, p99 {ratio:.2f}")
    return kept, ratio


if __name__ == "__main__":
    main()
