"""Locust users of the service: predictions with pictures of real sizes, lists, `set` under load.

    locust -f loadtests/locustfile.py --headless -u 16 -t 60s --host http://localhost:3000

Environment:
    SCENARIO          `steady` (default), or `set`: one user besides changes the active model
    LOADTEST_IMAGES   a folder or zip of JPEGs to send instead of the built-in pictures
    LOADTEST_MODELS   two tags, comma-separated, for `set`; default: the two newest models
    LOADTEST_TOKEN    a token, where the service needs one; `set` needs the role `manage`
    LOADTEST_P99_MS   p99 of a prediction above this fails the run (default 2000)

Locust exits with 1 when any request failed, when that p99 is exceeded, or when nothing was asked.
"""

import os
import random
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, constant, events, task
from locust.env import Environment
from locust.exception import StopUser

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # locust is given a file

from benchmarks import pictures

SCENARIO = os.environ.get("SCENARIO", "steady")
SIZES = {(32, 32): 10, (256, 256): 6, (640, 480): 3, (1920, 1080): 1}
"""Width and height of the pictures, and how often each is sent."""
PICTURES_A_SIZE = 16
TOKEN = os.environ.get("LOADTEST_TOKEN")
HEADERS = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
P99_MS = float(os.environ.get("LOADTEST_P99_MS", "2000"))
GRACE = 1.0
"""Seconds in which every worker must have followed a `set`."""
PAUSE = 0.5
"""Seconds between two `set`s."""

if SCENARIO not in ("steady", "set"):
    raise SystemExit(f"SCENARIO is `steady` or `set`, not {SCENARIO!r}.")


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


BOUNDARY = "imgcls-loadtest-boundary"
FORM_TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def form(name: str, picture: bytes) -> Form:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="image.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return Form(name, head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode())


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


class Caller(FastHttpUser):
    """Sends pictures without pause, and now and then asks for the list of models."""

    default_headers = HEADERS
    wait_time = constant(0)
    network_timeout = 60.0
    connection_timeout = 10.0

    @task(50)
    def predict(self) -> None:
        chosen = random.choice(random.choices(GROUPS, WEIGHTS)[0])
        sent = time.monotonic()
        with self.client.post(
            "/predict", data=chosen.body, headers=FORM_TYPE, name=chosen.name, catch_response=True
        ) as response:
            if fault := _fault(response, sent):
                response.failure(fault)

    @task(1)
    def list(self) -> None:
        self.client.post("/list", json={}, name="/list")


class Switcher(FastHttpUser):
    """Sets two models in turn, all the time: a `set` must cost nobody an answer."""

    abstract = SCENARIO != "set"
    default_headers = HEADERS
    fixed_count = 1
    wait_time = constant(PAUSE)
    network_timeout = 60.0

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


def _fault(response: Any, sent: float) -> str | None:
    """What is wrong with an answer to one picture, if anything."""
    if response.status_code != 200:
        return f"{response.status_code}: {(response.text or '')[:200]}"
    answer = response.json()
    predictions = answer.get("predictions", [])
    if len(predictions) != 1 or not predictions[0].get("label"):
        return f"no label: {predictions}"
    if not activations.allows(answer["model"], sent, time.monotonic()):
        return "the answer is from a model that is no longer active"
    return None


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Turn the figures into the exit code of Locust."""
    total = environment.stats.total
    predictions = [e for (name, _), e in environment.stats.entries.items() if "/predict" in name]
    asked = sum(entry.num_requests for entry in predictions)
    slowest = max((e.get_response_time_percentile(0.99) or 0 for e in predictions), default=0)
    faults = []
    if not asked:
        faults.append("no prediction was made")
    if total.num_failures:
        faults.append(f"{total.num_failures} of {total.num_requests} requests failed")
    if slowest > P99_MS:
        faults.append(f"p99 of predictions is {slowest:.0f} ms, above {P99_MS:.0f} ms")
    verdict = "; ".join(faults) or f"{asked} predictions, none failed, p99 {slowest:.0f} ms"
    print(f"{'FAILED' if faults else 'PASSED'} ({SCENARIO}): {verdict}")
    environment.process_exit_code = 1 if faults else 0
