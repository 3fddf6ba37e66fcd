"""One network's race: rounds in which every contestant is started, asked, loaded and stopped.

Only one contestant is up at a time, and the rounds alternate between them, so that a noisy
neighbour hits all. A server's start and memory are measured in every round, like its speed.
"""

import asyncio
import contextlib
import http.client
import json
import subprocess
import sys
import time
import urllib.parse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import models, pictures
from benchmarks.serve.contestants import (
    EMPTY,
    OFFLINE,
    TINY,
    TINY_SIDE,
    Contestant,
    Entry,
    Served,
    contestants,
)
from benchmarks.serve.load import CONTENT_TYPE, FIELD, PATH, Wrk, body
from benchmarks.servers import ROOT, Server, started

START_TIMEOUT = 120.0
_START_ATTEMPTS = 3
"""Free ports are chosen before they are bound, and now and then somebody else is quicker."""
_SETTLE = 1.0
"""Seconds after the warm-up, for the requests that it left unanswered."""
_ASK_AGAIN = 0.01
"""Seconds between attempts to get the first prediction."""


class NoStart(SystemExit):
    """A server ended, or took too long, before it predicted anything."""


@dataclass(frozen=True, slots=True)
class Settings:
    data: Path | None
    """Where the pictures come from: a folder or a zip; parts of two photographs without."""
    only: tuple[str, ...]
    """Names of contestants; all of them where it is empty."""
    int8: bool
    """Whether imgcls takes part with its 8-bit graph too."""
    pictures: int
    connections: int
    seconds: int
    warm_up: int


Row = dict[str, Any]
"""What one contestant did in one round."""


class Race:
    def __init__(self, network: str, settings: Settings, scratch: Path) -> None:
        """Make the pictures and the model, and register it in a store of its own."""
        self.network = network
        self._settings = settings
        self._files = _pictures(network, settings)
        scratch.mkdir()
        home, weights = scratch / "bentoml", scratch / "weights.pt"
        if network == TINY:
            self.model = models.cnn(home, side=TINY_SIDE)
        else:
            self.model = models.torchvision(home, network, self._files[:16], weights)
        side = self.model.card.preprocessing.height
        int8 = self._in_8_bits(scratch / "int8") if settings.int8 and network != TINY else None
        entry = Entry(network, side, self._served(home, self.model), int8, weights)
        self._servers = [c for c in contestants(entry) if self._takes_part(c.name)]
        self._offline = [name for name in OFFLINE if self._takes_part(name) and network != TINY]
        self._wrk = Wrk(scratch / "bodies", self._files, settings.connections)
        self._photos = scratch / "photos"
        self._photos.mkdir()
        for number, file in enumerate(self._files):
            (self._photos / f"{number:03d}.jpg").write_bytes(file)
        self._checked: set[str] = set()

    def round(self) -> dict[str, Row]:
        """Everybody once, in turn; prints a line for each."""
        rows: dict[str, Row] = {}
        for contestant in self._servers:
            rows[contestant.name] = self._serve(contestant)
            _show(contestant.name, rows[contestant.name])
        for name in self._offline:
            rows[name] = self._bare(name.removeprefix("offline-"))
            _show(name, rows[name])
        return rows

    def _served(self, home: Path, model: models.Model) -> Served:
        return Served(home, model.folder, models.labels(model, self._files))

    def _in_8_bits(self, home: Path) -> Served | None:
        model = models.in_8_bits(self.model, home, self._files[:16])
        if model is None:
            print(f"{self.network} is no quicker in 8 bits here and races without.", flush=True)
            return None
        return self._served(home, model)

    def _takes_part(self, name: str) -> bool:
        return not self._settings.only or name in self._settings.only

    def _serve(self, contestant: Contestant) -> Row:
        for _ in range(_START_ATTEMPTS - 1):
            with contextlib.suppress(NoStart):
                return self._once(contestant)
        return self._once(contestant)

    def _once(self, contestant: Contestant) -> Row:
        with started(contestant.command, env=contestant.env) as server:
            row: Row = {"start_seconds": _first_prediction(server, contestant, self._files[0])}
            if contestant.name != EMPTY:
                if contestant.name not in self._checked:
                    asyncio.run(self._check(server, contestant))
                    self._checked.add(contestant.name)
                self._wrk.run(server.url, self._settings.warm_up)
                time.sleep(_SETTLE)
                measured = self._wrk.run(server.url, self._settings.seconds)
                row |= asdict(measured) | {"rate": measured.rate, "errors": measured.errors}
            row["memory_mb"] = _memory_mb(server.process.pid)
        return row

    def _bare(self, way: str) -> Row:
        command = [sys.executable, "-m", "benchmarks.serve.offline", "--way", way]
        command += ["--model", str(self.model.folder), "--photos", str(self._photos)]
        command += ["--warm-up", str(self._settings.warm_up)]
        command += ["--seconds", str(self._settings.seconds)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        row: Row = json.loads(done.stdout)
        return row | {"rate": row["requests"] / row["seconds"]}

    async def _check(self, server: Server, contestant: Contestant) -> None:
        """Send all pictures at once; every answer must have the label that the model gives."""
        limits = httpx.Limits(max_connections=self._settings.connections)
        async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:

            async def ask(file: bytes, label: int | None) -> None:
                sent = {FIELD: ("image.jpg", file, "image/jpeg")}
                response = await client.post(PATH, files=sent)
                if response.status_code != 200:
                    raise SystemExit(
                        f"{contestant.name} answers {response.status_code}: {response.text}\n"
                        f"Its log ends:\n{server.tail()}"
                    )
                got = contestant.probabilities(response.json())
                if label is not None and got.index(max(got)) != label:
                    raise SystemExit(f"{contestant.name} answers {got} where {label} is right.")

            async with asyncio.TaskGroup() as group:
                for file, label in zip(self._files, contestant.labels, strict=True):
                    group.create_task(ask(file, label))


def _pictures(network: str, settings: Settings) -> list[bytes]:
    if network == TINY:
        return pictures.squares(settings.data, TINY_SIDE, settings.pictures)
    return pictures.photos(settings.data, settings.pictures)


def _first_prediction(server: Server, contestant: Contestant, file: bytes) -> float:
    """Seconds from the start of the process to the first answer. Raises `NoStart`."""
    host = urllib.parse.urlsplit(server.url).netloc
    form, kind = body(file), CONTENT_TYPE
    if contestant.name == EMPTY:
        form, kind = b"{}", "application/json"
    while time.perf_counter() < server.started + START_TIMEOUT and server.process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(host, timeout=START_TIMEOUT)
            try:
                connection.request("POST", PATH, form, {"Content-Type": kind})
                response = connection.getresponse()
                response.read()
                if response.status == 200:
                    return time.perf_counter() - server.started
            finally:
                connection.close()
        time.sleep(_ASK_AGAIN)
    raise NoStart(f"{contestant.name} does not start. Its log ends:\n{server.tail()}")


def _memory_mb(pid: int) -> float:
    """Of a server and its workers together, in MB; pages that they share count once."""
    root = psutil.Process(pid)
    total = 0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.uss)
    return total / 1e6


def _show(name: str, row: Row) -> None:
    parts = []
    if "rate" in row:
        parts.append(f"{row['rate']:8.1f} requests/s")
    if "p50_ms" in row:
        parts.append(f"p50 {row['p50_ms']:.0f} ms, p99 {row['p99_ms']:.0f} ms")
        parts.append(f"{row['errors']} errors")
    if "start_seconds" in row:
        parts.append(f"start {row['start_seconds']:.2f} s, {row['memory_mb']:.0f} MB")
    print(f"  {name:<18}{', '.join(parts)}", flush=True)
