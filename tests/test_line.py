"""The whole line over HTTP, with real training: upload, fit, follow, set, predict, and its ends."""

import json
import os
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgcls.card import GRAPH_FILE
from imgcls.client import Client
from imgcls.errors import BadModel, BadRecipe, JobOver, TimeLimitExceeded
from imgcls.jobs import Job
from tests.conftest import Server
from tests.fakes import COLOURS, class_folders, jpeg

QUICK = {"epochs": 4, "augment": {"horizontal_flip": False}, "batch_size": 16}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, timeout=300) as connected:
        yield connected


@pytest.fixture(scope="module")
def dataset(client: Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = class_folders(tmp_path_factory.mktemp("colours") / "data", per_class=40)
    archive = root.parent / "colours.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        for path in sorted(root.rglob("*.jpg")):
            writer.write(path, path.relative_to(root))
    return client.upload(archive, name="colours").tag


def until(read: Callable[[], Job], state: str, seconds: float = 120) -> Job:
    deadline = time.monotonic() + seconds
    while (job := read()).state != state:
        assert not job.over, job
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    return job


def endless(client: Client, dataset: str, **options: object) -> Job:
    """A job that would train for hours."""
    overrides = {"epochs": 10_000, "early_stop.patience": 0}
    return client.fit(dataset, name="endless", overrides=overrides, **options).job  # type: ignore[arg-type]


def test_fit_set_predict_without_restarting_anything(
    client: Client, dataset: str, server: Server
) -> None:
    started = client.fit(dataset, name="colours", overrides=QUICK)
    assert started.card is None
    seen = list(client.follow(started.job.id))
    assert {"loading", "training", "done"} <= {job.stage for job in seen} | {seen[-1].stage}
    done = seen[-1]
    assert done.state == "succeeded", done.reason
    assert done.tag is not None
    card = client.info(done.tag)
    assert card.metrics.accuracy > 0.9
    assert card.dataset.tag == dataset
    assert card.parity <= 1e-4
    assert card.recipe["epochs"] == 4
    goldens = list((server.registry.folder(card.tag) / "golden").glob("[0-9]*"))
    assert 8 <= len(goldens) <= 16
    assert client.set(card.tag).active == card.tag
    answer = client.predict([jpeg(colour, (28, 24)) for colour in COLOURS])
    assert answer.model == card.tag
    assert [p.label for p in answer.predictions] == list(COLOURS)


def test_wait_answers_with_the_card(client: Client, dataset: str) -> None:
    done = client.fit(dataset, name="waited", overrides=QUICK, wait=True, baseline=True)
    assert done.job.state == "succeeded"
    assert done.card is not None
    assert done.card.baseline
    tampered = client.info("waited").tag
    assert tampered == done.card.tag


def test_a_tampered_model_is_refused(client: Client, dataset: str, server: Server) -> None:
    good = client.fit(dataset, name="good", overrides=QUICK, wait=True).card
    assert good is not None
    client.set(good.tag)
    bad = client.fit(dataset, name="bad", overrides=QUICK | {"seed": 1}, wait=True).card
    assert bad is not None
    graph = server.registry.folder(bad.tag) / GRAPH_FILE
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with pytest.raises(BadModel):
        client.set(bad.tag)
    assert client.predict(jpeg()).model == good.tag


def test_past_the_time_limit_waiting_gets_408(client: Client, dataset: str) -> None:
    with pytest.raises(TimeLimitExceeded):
        endless(client, dataset, time_limit=1.0, wait=True)
    assert client.jobs()[0].code == "time_limit"


def test_cancel_ends_a_running_job(client: Client, dataset: str) -> None:
    job = endless(client, dataset)
    until(lambda: client.job(job.id), "running")
    assert client.cancel(job.id).state == "cancelled"
    with pytest.raises(JobOver):
        client.cancel(job.id)


def test_kill_9_of_the_training_is_a_failed_job_and_a_clean_store(
    client: Client, dataset: str, server: Server
) -> None:
    before = {row.tag for row in client.list().models}
    job = endless(client, dataset)
    until(lambda: client.job(job.id), "running")
    process = json.loads((server.home / "jobs" / job.id / "process.json").read_text())
    os.kill(process["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while "SIGKILL" not in (client.job(job.id).reason or ""):
        assert time.monotonic() < deadline, client.job(job.id)
        time.sleep(0.1)
    assert client.job(job.id).state == "failed"
    assert {row.tag for row in client.list().models} == before
    assert not list(server.store.glob("endless*"))


def test_weights_that_cannot_be_had_fail_with_a_way_on(
    client: Client, dataset: str, server: Server
) -> None:
    weights = server.home / "weights"
    weights.mkdir(exist_ok=True)
    (weights / "resnet18.pth").write_bytes(b"no state dict")
    with pytest.raises(BadRecipe, match="state dict"):
        client.fit(
            dataset,
            name="probe",
            recipe="linear-probe",
            overrides={"features.weights": "resnet18.pth", "image_size": 32},
            wait=True,
        )


def test_the_pets_archive_uploads_and_profiles(client: Client, pets_zip: Path) -> None:
    summary = client.upload(pets_zip, name="pets")
    assert summary.images == 5400
    assert summary.splits["test"] == 900
    profile = client.eda(summary.tag)
    assert profile.overall.pixels is not None
    assert profile.overall.pixels.mean == 1024
