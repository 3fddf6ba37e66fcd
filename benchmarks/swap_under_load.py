"""Two models set in turn while every worker is fully loaded: what must hold, and whether it does.

    python -m benchmarks.swap_under_load [--sets 1000] [--workers 1] [--connections 32]

Clients send pictures without pause while another one sets model after model. The command fails
unless every request was answered with 200 and with the label that the model it names gives to that
picture, no answer names a model that had not been active for more than a second, and no worker
grew. After every 50th `set` the next one waits 1.5 s: only then can the check of the second fail.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import models, pictures
from benchmarks.servers import serving, stop_on_sigterm

BOUNDARY = "imgcls-swap-boundary"
GRACE = 1.0
"""Seconds in which every worker must have followed a `set`."""
REST_EVERY, REST = 50, 1.5
"""Sets between two rests, and seconds of a rest."""
SETTLED = 0.1
"""Share of the sets after which memory must not grow."""
MAX_GROWTH_MB = 24.0
"""MiB of resident memory that a worker may gain after that: what its allocator plays with."""
SIDE = 32

Truths = dict[str, list[str | None]]
"""By tag: the label of each picture, None where the two most probable classes are too close."""


@dataclass(slots=True)
class Active:
    tag: str
    since: float
    until: float = float("inf")
    """When the next `set` was answered."""


@dataclass(slots=True)
class Run:
    """What has happened so far; times are `time.monotonic()`."""

    truths: Truths

    actives: list[Active]
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    sets: list[float] = field(default_factory=list)
    over: bool = False

    def check(self, number: int, status: int, body: bytes, sent: float) -> None:
        """Judge the answer to picture `number`."""
        answered = time.monotonic()
        self.seconds.append(answered - sent)
        if status != 200:
            self.faults.append(f"{status}: {body[:200]!r}")
            return
        answer = json.loads(body)
        tag, label = answer["model"], answer["predictions"][0].get("label")
        if label != (self.truths[tag][number] or label):
            self.faults.append(f"{tag} gave picture {number} the label {label}")
        if not any(
            tag == one.tag and one.since <= answered and sent <= one.until + GRACE
            for one in reversed(self.actives)
        ):
            self.faults.append(f"{tag} answered although it had not been active for a second")


def main() -> None:
    parser = argparse.ArgumentParser(description="Set two models in turn under full load.")
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--connections", type=int, default=32)
    arguments = parser.parse_args()
    stop_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="swap-") as scratch:
        home = Path(scratch) / "bentoml"
        pair = [models.cnn(home, side=SIDE, seed=seed) for seed in range(2)]
        files = pictures.cut(SIDE, SIDE, 64)
        truths = {
            model.card.tag: [
                None if index is None else model.card.labels[index]
                for index in models.labels(model, files)
            ]
            for model in pair
        }
        env = {"BENTOML_HOME": str(home), "IMGCLS_WORKERS": str(arguments.workers)}
        with serving("service:ImageClassifier", env=env) as server:
            faults = asyncio.run(
                swap(
                    server.url,
                    server.process.pid,
                    truths,
                    files,
                    sets=arguments.sets,
                    connections=arguments.connections,
                )
            )
    raise SystemExit("\n".join(faults) if faults else 0)


async def swap(
    url: str, pid: int, truths: Truths, files: list[bytes], *, sets: int, connections: int
) -> list[str]:
    """Run the load and the sets; prints the figures and returns every line that was broken.

    `truths` names the two models, of which the last is active; `pid` is the server's first process.
    """
    host, port = url.removeprefix("http://").split(":")
    tags = list(truths)
    run = Run(truths, [Active(tags[-1], since=0.0)])
    requests = [predict_request(file) for file in files]
    began = time.monotonic()
    clients = [
        asyncio.create_task(_ask(run, host, int(port), requests, start))
        for start in range(connections)
    ]
    before: dict[int, float] = {}
    channel = await asyncio.open_connection(host, int(port))
    await asyncio.sleep(1)
    for count in range(sets):
        if count == int(sets * SETTLED):
            before = resident_mb(pid)
        await _set(run, channel, tags[count % len(tags)])
        if (count + 1) % REST_EVERY == 0:
            await asyncio.sleep(REST)
    after = resident_mb(pid)
    run.over = True
    await asyncio.gather(*clients)
    channel[1].close()
    faults = _broken(run, before, after)
    _report(run, before, after, time.monotonic() - began, len(faults))
    return faults


def predict_request(file: bytes) -> bytes:
    """A whole `/predict` for one JPEG, as it goes over the wire."""
    body = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    body += file + f"\r\n--{BOUNDARY}--\r\n".encode()
    return post("/predict", f"multipart/form-data; boundary={BOUNDARY}", body)


def post(path: str, kind: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bytes]:
    """Send a request and read its answer: status and body."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    return int(status.split()[1]), await reader.readexactly(int(headers["content-length"]))


def resident_mb(root: int) -> dict[int, float]:
    """MiB of resident memory by process id, of all processes started by `root`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    found = {}
    for pid in family - {root}:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        line = next(line for line in status if line.startswith("VmRSS"))
        found[pid] = int(line.split()[1]) / 1024
    return found


async def _ask(run: Run, host: str, port: int, requests: list[bytes], start: int) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    number = start
    while not run.over:
        number = (number + 1) % len(requests)
        sent = time.monotonic()
        try:
            run.check(number, *await exchange(reader, writer, requests[number]), sent)
        except (OSError, EOFError) as err:
            run.faults.append(f"the connection broke: {err!r}")
            return
    writer.close()


async def _set(run: Run, channel: Any, tag: str) -> None:
    sent = time.monotonic()
    run.actives.append(Active(tag, since=sent))
    request = post("/set", "application/json", json.dumps({"tag": tag}).encode())
    status, body = await exchange(*channel, request)
    answered = time.monotonic()
    run.sets.append(answered - sent)
    for earlier in run.actives[-2:-1]:
        earlier.until = answered
    if status != 200 or json.loads(body)["active"] != tag:
        run.faults.append(f"set answered {status}: {body[:200]!r}")
    # What is older than this cannot have answered rightly any more.
    run.actives = [one for one in run.actives if one.until > answered - 60]


def _broken(run: Run, before: dict[int, float], after: dict[int, float]) -> list[str]:
    faults = [f"{len(run.faults)} faults, the first: {run.faults[0]}"] if run.faults else []
    if before.keys() != after.keys():
        faults.append(f"the processes changed: {sorted(before)} became {sorted(after)}")
    faults += [
        f"process {pid} grew by {after[pid] - size:.1f} MiB"
        for pid, size in before.items()
        if after.get(pid, 0.0) - size > MAX_GROWTH_MB
    ]
    return faults


def _report(
    run: Run, before: dict[int, float], after: dict[int, float], seconds: float, broken: int
) -> None:
    def percentile(values: list[float], share: int) -> float:
        return statistics.quantiles(values, n=100)[share - 1] * 1000

    show: Callable[[str], None] = print
    rate = len(run.seconds) / seconds
    show(f"{len(run.sets)} sets, {len(run.seconds)} predictions in {seconds:.0f} s: {rate:.0f}/s")
    for name, values in (("set", run.sets), ("predict", run.seconds)):
        p50, p99 = percentile(values, 50), percentile(values, 99)
        show(f"{name:<8} p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {max(values) * 1000:.1f} ms")
    for pid, size in sorted(before.items()):
        show(f"process {pid}: {size:.1f} MiB, then {after.get(pid, 0.0):.1f} MiB")
    show(f"faults {len(run.faults)}; {'FAILED' if broken else 'PASSED'}")


if __name__ == "__main__":
    main()
