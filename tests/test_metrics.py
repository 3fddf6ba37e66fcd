"""What `/metrics` says of predictions: as many as were sent, whatever worker answered them."""

import concurrent.futures
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from imgcls.drift import Reference
from imgcls.metrics import BATCH_IMAGES, REQUEST_SECONDS, Metrics
from imgcls.watch import LOOK_SECONDS
from tests.conftest import Server, start_server
from tests.fakes import jpeg, tiny_model, tiny_regression

BROKEN = b"\xff\xd8\xff broken"


class Scrape:
    """The samples of one `/metrics`."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.types = {family.name: family.type for family in families}
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples.get((name, frozenset(labels.items())), 0.0)


def scrape(server: Server) -> Scrape:
    return Scrape(httpx.get(f"{server.url}/metrics", timeout=30).text)


def eventually(check: Callable[[], bool], seconds: float = 15) -> bool:
    """Workers publish a few times a second, so a number may be a moment late."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def predict(server: Server, *contents: bytes, **options: str) -> int:
    files = [("images", (f"{n}.jpg", data)) for n, data in enumerate(contents)]
    url = f"{server.url}/predict"
    return httpx.post(url, files=files, data=options, timeout=30).status_code


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = start_server(tmp_path_factory.mktemp("two"), workers=2)
    yield started
    started.stop()


def activate(server: Server, folder: Path) -> str:
    tag = tiny_model(folder, server.registry)
    answer = httpx.post(f"{server.url}/set", json={"tag": tag}, timeout=30)
    assert answer.json()["active"] == tag
    return tag


def test_published_histograms_are_what_observe_makes_of_the_same_values() -> None:
    values = [0.0005, 0.001, 0.0011, 0.3, 0.3, 29.9, 31.0]
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    metrics = Metrics(ours)
    direct = Histogram("imgcls_request_seconds", "", buckets=REQUEST_SECONDS, registry=theirs)
    for value in values:
        metrics.model("a:1").request_seconds.add(value)
        metrics.publish(active=None, waiting={}, drift={})
        direct.observe(value)
    metrics.publish(active=None, waiting={}, drift={})
    bounds = [*map(float, REQUEST_SECONDS), float("inf")]
    name = "imgcls_request_seconds"
    for bound in ["+Inf" if b == float("inf") else str(b) for b in bounds]:
        expected = theirs.get_sample_value(f"{name}_bucket", {"le": bound})
        assert ours.get_sample_value(f"{name}_bucket", {"le": bound, "model": "a:1"}) == expected
    assert ours.get_sample_value(f"{name}_sum", {"model": "a:1"}) == pytest.approx(sum(values))
    assert ours.get_sample_value("imgcls_requests_total", {"model": "a:1"}) == len(values)


def test_gauges_leave_what_is_no_longer_loaded_at_zero() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.publish(active="a:1", waiting={"a:1": 7}, drift={"a:1": 0.5})
    assert registry.get_sample_value("imgcls_active_model", {"model": "a:1"}) == 1
    assert registry.get_sample_value("imgcls_queue_images", {"model": "a:1"}) == 7
    assert registry.get_sample_value("imgcls_drift_score", {"model": "a:1"}) == 0.5
    metrics.publish(active="b:1", waiting={"b:1": 0}, drift={})
    assert registry.get_sample_value("imgcls_active_model", {"model": "a:1"}) == 0
    assert registry.get_sample_value("imgcls_active_model", {"model": "b:1"}) == 1
    assert registry.get_sample_value("imgcls_queue_images", {"model": "a:1"}) == 0


def test_metrics_move_by_what_was_sent(server: Server, tmp_path: Path) -> None:
    tag = activate(server, tmp_path / "m")
    before = scrape(server)
    assert predict(server, jpeg("red")) == 200
    assert predict(server, jpeg("red"), jpeg("green"), jpeg("blue", (900, 700)), BROKEN) == 200
    assert predict(server, BROKEN) == 400
    assert predict(server) == 415
    assert httpx.get(f"{server.url}/nothing").status_code == 404
    refusals = "imgcls_refusals_total"
    last = before(refusals, code="not_found") + 1
    assert eventually(lambda: scrape(server)(refusals, code="not_found") == last)
    now = scrape(server)
    assert now("imgcls_requests_total", model=tag) == 2
    assert now("imgcls_request_seconds_count", model=tag) == 2
    assert 0 < now("imgcls_request_seconds_sum", model=tag) < 10
    assert now("imgcls_decode_seconds_count", model=tag) == 4
    assert now("imgcls_batch_images_sum", model=tag) == 4
    assert 2 <= now("imgcls_inference_seconds_count", model=tag) <= 4
    assert now("imgcls_inference_seconds_sum", model=tag) > 0
    assert now("imgcls_confidence_count", model=tag) == 4
    assert now("imgcls_confidence_bucket", model=tag, le="0.9") == 0
    assert now("imgcls_active_model", model=tag) == 1
    assert now("imgcls_queue_images", model=tag) == 0
    for code, count in {"broken_image": 2, "unsupported_media_type": 1, "not_found": 1}.items():
        assert now(refusals, code=code) - before(refusals, code=code) == count, code
    assert now.types["imgcls_request_seconds"] == "histogram"
    assert now.types["imgcls_requests"] == "counter"


def test_scores_are_counted_by_their_place_in_the_range_and_abstentions_by_model(
    server: Server, tmp_path: Path
) -> None:
    scores = tiny_regression(tmp_path / "r", server.registry, output_range=(0, 90))
    assert predict(server, jpeg("black"), jpeg("grey"), jpeg("white"), model=scores) == 200
    careful = tiny_model(tmp_path / "c", server.registry, "careful", abstain_below=0.9)
    assert predict(server, jpeg("red"), jpeg("grey"), jpeg("grey"), model=careful) == 200
    plain = activate(server, tmp_path / "m")
    assert predict(server, jpeg("grey")) == 200
    assert eventually(lambda: scrape(server)("imgcls_confidence_count", model=plain) == 1)
    now = scrape(server)
    assert now("imgcls_score_count", model=scores) == 3
    assert now("imgcls_score_sum", model=scores) == pytest.approx(0 + 0.5 + 1, abs=0.01)
    assert now("imgcls_score_bucket", model=scores, le="0.0") == 1
    assert now("imgcls_score_bucket", model=scores, le="1.0") == 3
    assert now("imgcls_confidence_count", model=scores) == 0
    assert now("imgcls_abstentions_total", model=careful) == 2
    assert now("imgcls_confidence_count", model=careful) == 3
    assert now("imgcls_abstentions_total", model=plain) == 0


def test_the_drift_score_is_published_once_enough_images_have_come(
    server: Server, tmp_path: Path
) -> None:
    tag = tiny_model(tmp_path / "m", server.registry)
    # This model's embedding is the mean colour: 80 is far below a red of 255, in units of 50.
    then = Reference(images=99, mean=[80.0, 80.0, 80.0], std=[50.0, 50.0, 50.0])
    then.save(server.registry.folder(tag))
    assert httpx.post(f"{server.url}/set", json={"tag": tag}, timeout=30).status_code == 200
    assert ("imgcls_drift_score", frozenset({("model", tag)})) not in scrape(server).samples
    for _ in range(30):
        assert predict(server, *[jpeg("red")] * 16) == 200
        time.sleep(2 * LOOK_SECONDS)
    expected = pytest.approx((175 + 80 + 80) / 3 / 50, rel=0.1)
    assert eventually(lambda: scrape(server)("imgcls_drift_score", model=tag) == expected)


def test_the_metrics_of_two_workers_add_up(two: Server, tmp_path: Path) -> None:
    tag = activate(two, tmp_path / "m")
    assert eventually(lambda: scrape(two)("imgcls_active_model", model=tag) == 2)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        # A connection each, so that both workers get some.
        assert set(threads.map(lambda _: predict(two, jpeg()), range(60))) == {200}
    assert eventually(lambda: scrape(two)("imgcls_requests_total", model=tag) == 60)
    now = scrape(two)
    assert now("imgcls_batch_images_sum", model=tag) == 60
    batches = now("imgcls_batch_images_count", model=tag)
    assert now("imgcls_batch_images_bucket", model=tag, le=str(float(BATCH_IMAGES[-1]))) == batches


def test_a_killed_worker_leaves_no_gauge_behind(two: Server, tmp_path: Path) -> None:
    tag = activate(two, tmp_path / "m")
    assert eventually(lambda: scrape(two)("imgcls_active_model", model=tag) == 2)
    workers = [
        child
        for child in psutil.Process(two.process.pid).children(recursive=True)
        if "--worker-id" in child.cmdline()
    ]
    assert len(workers) == 2
    os.kill(workers[0].pid, signal.SIGKILL)
    killed = workers[0].pid
    files = two.root / "bentoml" / "prometheus_multiproc_dir"
    assert eventually(lambda: not list(files.glob(f"gauge_live*_{killed}.db")), 60)

    def two_again() -> bool:
        try:
            return scrape(two)("imgcls_active_model", model=tag) == 2
        except httpx.HTTPError:
            return False

    assert eventually(two_again, 60)
