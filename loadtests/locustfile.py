"""Locust users of the service, and the verdict: what `scenarios.py` says each scenario may cost.

    SCENARIO=set locust -f loadtests/locustfile.py --headless -u 17 -t 60s --host http://localhost:3000

Environment:
    SCENARIO          one of `scenarios.py`; `steady` by default
    LOADTEST_IMAGES   a folder or zip of JPEGs to send instead of the built-in pictures
    LOADTEST_MODELS   two tags, comma-separated, to alternate between; default: the two newest
    LOADTEST_P99_MS   instead of the scenario's own limit on the p99 of a prediction
    LOADTEST_TOKEN    sent as a bearer token with every request; `set` needs the role `manage`
    LOADTEST_PID      the service's process, whose memory is watched
    LOADTEST_VERDICT  a file for the figures and the verdict as JSON

Locust exits with 1 when a limit is exceeded.
"""

import dataclasses
import io
import json
import os
import random
import sys
import time
import zipfile
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import psutil
from locust import FastHttpUser, LoadTestShape, User, constant, events, task
from locust.env import Environment
from locust.exception import StopUser

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # locust is given a file

from benchmarks import pictures
from loadtests import hostile, multipart
from loadtests.scenarios import SCENARIOS, Figures, faults

NAME = os.environ.get("SCENARIO", "steady")
if NAME not in SCENARIOS:
    raise SystemExit(f"SCENARIO is one of {', '.join(SCENARIOS)}, not {NAME!r}.")
SCENARIO = SCENARIOS[NAME]
if limit := os.environ.get("LOADTEST_P99_MS"):
    limits = dataclasses.replace(SCENARIO.limits, p99_ms=float(limit))
    SCENARIO = dataclasses.replace(SCENARIO, limits=limits)
TOKEN = os.environ.get("LOADTEST_TOKEN")
HEADERS = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
SIZES = {(32, 32): 10, (256, 256): 6, (640, 480): 3, (1920, 1080): 1}
"""Width and height of the pictures, and how often each is sent."""
PICTURES_A_SIZE = 16
GRACE = 1.0
"""Seconds in which every worker must have followed a `set`."""
PAUSE = 0.5
"""Seconds between two `set`s."""
CLASSES = 2
PICTURES_A_CLASS = 24
"""What the trainer trains on."""
FORM_HEADERS = {"Content-Type": multipart.FORM_TYPE.decode()}


@dataclass(slots=True)
class Activation:
    """One model's time as the active one, as far as a client can know it."""

    tag: str
    since: float
    """When its `set` was sent: from then on the server may use it."""
    until: float = float("inf")
    """When the next `set` was answered: after `GRACE` more, it must no longer be used."""


@dataclass(slots=True)
class Activations:
    """What this process has set; users in other Locust processes are not seen."""

    known: deque[Activation] = field(default_factory=lambda: deque(maxlen=100))

    def allows(self, tag: str, sent: float, answered: float) -> bool:
        """Whether `tag` may have answered a request that was under way between those times."""
        if not self.known:
            return True
        return any(
            tag == one.tag and one.since <= answered and sent <= one.until + GRACE
            for one in self.known
        )


@dataclass(frozen=True, slots=True)
class Form:
    """One picture as a multipart body, built once and sent many times."""

    name: str
    body: bytes


def form(name: str, picture: bytes) -> Form:
    return Form(name, multipart.form([multipart.file(picture)]))


def forms() -> tuple[list[list[Form]], list[int]]:
    """Groups of pictures, and how often to draw from each."""
    if folder := os.environ.get("LOADTEST_IMAGES"):
        files = pictures.read(Path(folder), 200)
        return [[form("/predict own pictures", file) for file in files]], [1]
    groups = [
        [
            form(f"/predict {width} x {height}", file)
            for file in pictures.cut(width, height, PICTURES_A_SIZE)
        ]
        for width, height in SIZES
    ]
    return groups, list(SIZES.values())


GROUPS, WEIGHTS = forms()
activations = Activations()
# Cutting pictures took seconds in which the event loop's clock stood still; the run's time limit
# would be shorter by them.
gevent.get_hub().loop.update_now()


class Client(FastHttpUser):
    """What all well-behaved users have in common."""

    abstract = True
    default_headers = HEADERS
    network_timeout = 60.0
    connection_timeout = 10.0


class Caller(Client):
    """Sends pictures without pause, and now and then asks for the list of models."""

    wait_time = constant(0)

    @task(50)
    def predict(self) -> None:
        chosen = random.choice(random.choices(GROUPS, WEIGHTS)[0])
        sent = time.monotonic()
        with self.client.post(
            "/predict",
            data=chosen.body,
            headers=FORM_HEADERS,
            name=chosen.name,
            catch_response=True,
        ) as response:
            if fault := _fault(response, sent):
                response.failure(fault)

    @task(1)
    def list(self) -> None:
        self.client.post("/list", json={}, name="/list")


class Switcher(Client):
    """Sets two models in turn, all the time: a `set` must cost nobody an answer."""

    abstract = "Switcher" not in SCENARIO.beside
    fixed_count = SCENARIO.beside.get("Switcher", 0)
    wait_time = constant(PAUSE)

    def on_start(self) -> None:
        self.tags = [t.strip() for t in os.environ.get("LOADTEST_MODELS", "").split(",") if t]
        if not self.tags:
            answer = self.client.post("/list", json={}, name="/list").json()
            self.tags = [model["tag"] for model in answer["models"][:2]]
        if len(self.tags) != 2:
            events.request.fire(
                request_type="SET",
                name="/set",
                response_time=0,
                response_length=0,
                exception=ValueError(f"two models are needed, there are: {self.tags}"),
            )
            raise StopUser

    @task
    def set(self) -> None:
        self.tags.reverse()
        activation = Activation(self.tags[0], since=time.monotonic())
        before = activations.known[-1] if activations.known else None
        if before is not None:
            activations.known.append(activation)
        with self.client.post(
            "/set", json={"tag": activation.tag}, name="/set", catch_response=True
        ) as response:
            answered = time.monotonic()
            if response.status_code != 200 or response.json().get("active") != activation.tag:
                response.failure(f"{response.status_code}: {response.text}")
        if before is None:
            # What was active before this run began is not known: the check starts here.
            time.sleep(GRACE)
            activations.known.append(activation)
        else:
            before.until = answered


class Trainer(Client):
    """Trains one small model after the other; never makes one active."""

    abstract = "Trainer" not in SCENARIO.beside
    fixed_count = SCENARIO.beside.get("Trainer", 0)
    wait_time = constant(PAUSE)
    job: str | None = None

    def on_start(self) -> None:
        archive = multipart.file(_dataset(), b'name="archive"; filename="loadtest.zip"')
        body = multipart.form([archive, multipart.text(b"name", b"loadtest")])
        self.client.post("/upload", data=body, headers=FORM_HEADERS, name="/upload")

    @task
    def train(self) -> None:
        if self.job is None:
            request = {
                "dataset": "loadtest",
                "name": "loadtest",
                "overrides": {"image_size": 32, "epochs": 3, "network.width": 1},
            }
            self.job = self.client.post("/fit", json=request, name="/fit").json()["job"]["id"]
            return
        with self.client.post(
            "/job", json={"id": self.job}, name="/job", catch_response=True
        ) as response:
            job = response.json()
            if job["state"] == "failed":
                response.failure(f"the training failed: {job['reason']}")
            if job["finished_at"]:
                self.job = None

    def on_stop(self) -> None:
        if self.job is not None:
            with self.client.post(
                "/cancel", json={"id": self.job}, name="/cancel", catch_response=True
            ) as response:
                if response.status_code == 409:  # it has ended by itself
                    response.success()


class Attacker(User):
    """Sends hostile requests on raw sockets: most at once, some in slow pieces."""

    abstract = "Attacker" not in SCENARIO.beside
    fixed_count = SCENARIO.beside.get("Attacker", 0)
    wait_time = constant(0.02)
    numbers = count()

    def on_start(self) -> None:
        self.attacks = hostile.attacks(seed=next(self.numbers))
        address = urlsplit(str(self.host))
        self.address = address.hostname or "localhost", address.port or 80

    @task(30)
    def attack(self) -> None:
        self._send("hostile")

    @task(1)
    def attack_slowly(self) -> None:
        self._send("hostile, slow", pieces=10, pause=0.2)

    def _send(self, name: str, *, pieces: int = 1, pause: float = 0.0) -> None:
        attack = next(self.attacks)
        if TOKEN:
            bearer = f"\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
            attack = dataclasses.replace(attack, wire=attack.wire.replace(b"\r\n", bearer, 1))
        began = time.monotonic()
        answer, fault = b"", None
        try:
            answer = hostile.send(*self.address, attack, pieces=pieces, pause=pause)
            fault = hostile.fault(attack, answer)
        except OSError as err:
            fault = repr(err)
        events.request.fire(
            request_type=attack.kind,
            name=name,
            response_time=1000 * (time.monotonic() - began),
            response_length=len(answer),
            exception=AssertionError(f"{attack.name}: {fault}") if fault else None,
        )


class Spike(LoadTestShape):
    """The callers that were asked for, `peak` times as many, and as many as at first again."""

    abstract = SCENARIO.peak == 1
    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        options = self.runner.environment.parsed_options
        progress = self.get_run_time() / options.run_time
        if progress >= 1:
            return None
        most = options.num_users * SCENARIO.peak
        return (most if 1 / 3 <= progress < 2 / 3 else options.num_users), most


memory_mb: list[float] = []
"""Resident memory of the service and its workers, once a second; trainings do not count."""


@events.test_start.add_listener
def watch_memory(environment: Environment, **_: Any) -> None:
    if pid := os.environ.get("LOADTEST_PID"):
        gevent.spawn(_watch, psutil.Process(int(pid)))


def _watch(service: psutil.Process) -> None:
    while True:
        processes = [service, *service.children(recursive=True)]
        memory_mb.append(sum(map(_resident, processes)) / 2**20)
        gevent.sleep(1)


def _resident(process: psutil.Process) -> int:
    """Bytes of one process of the service; 0 of a training, and of one that has ended."""
    try:
        with process.oneshot():
            return 0 if "training" in process.cmdline() else int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _dataset() -> bytes:
    """A zip of class folders."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for label in range(CLASSES):
            for number, file in enumerate(pictures.cut(32, 32, PICTURES_A_CLASS, seed=label)):
                archive.writestr(f"class-{label}/{number}.jpg", file)
    return buffer.getvalue()


def _fault(response: Any, sent: float) -> str | None:
    """What is wrong with an answer to one picture, if anything."""
    if response.status_code != 200:
        return f"{response.status_code}: {(response.text or '')[:200]}"
    answer = response.json()
    predictions = answer.get("predictions", [])
    if len(predictions) != 1 or not {"label", "score"} & predictions[0].keys():
        return f"neither label nor score: {predictions}"
    if not activations.allows(answer["model"], sent, time.monotonic()):
        return "the answer is from a model that is no longer active"
    return None


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Turn the figures into the exit code of Locust."""
    entries = environment.stats.entries
    hostile_entries = [entry for (name, _), entry in entries.items() if "hostile" in name]
    good = [entry for (name, _), entry in entries.items() if "hostile" not in name]
    predictions = [entry for entry in good if "/predict" in entry.name]
    figures = Figures(
        predictions=sum(entry.num_requests for entry in predictions),
        good_requests=sum(entry.num_requests for entry in good),
        good_failures=sum(entry.num_failures for entry in good),
        p99_ms=max((e.get_response_time_percentile(0.99) or 0 for e in predictions), default=0),
        hostile_requests=sum(entry.num_requests for entry in hostile_entries),
        hostile_failures=sum(entry.num_failures for entry in hostile_entries),
        memory_mb=memory_mb,
    )
    found = faults(figures, SCENARIO)
    said = f"{figures.predictions} predictions, p99 {figures.p99_ms:.0f} ms"
    if SCENARIO.limits.growth_mb is not None:
        growth = figures.growth_mb
        said += ", memory " + ("was not measured" if growth is None else f"{growth:+.0f} MiB")
    print(f"{'FAILED' if found else 'PASSED'} ({NAME}): {'; '.join([*found, said])}")
    if path := os.environ.get("LOADTEST_VERDICT"):
        verdict = {"scenario": NAME, "passed": not found, "faults": found}
        verdict |= {"limits": dataclasses.asdict(SCENARIO.limits)}
        verdict |= {"figures": dataclasses.asdict(figures) | {"growth_mb": figures.growth_mb}}
        Path(path).write_text(json.dumps(verdict, indent=2) + "\n")
    environment.process_exit_code = 1 if found else 0
