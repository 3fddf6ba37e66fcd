"""The shadow model: scored beside the traffic, never in its way."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from imgcls.card import GRAPH_FILE
from imgcls.cli.app import app
from imgcls.engine import Engine
from imgcls.errors import BadModel, Conflict, ModelInUse, ModelNotFound
from imgcls.registry import Registry
from imgcls.schemas import Disagreement, Opinion, ShadowCounts
from imgcls.settings import Settings
from imgcls.shadow import Shadow
from tests.conftest import start_server
from tests.fakes import jpeg, tiny_model, tiny_regression

GREENISH = (0.0, 30.0, 0.0)
RED = {"label": "red", "probability": 0.99}
GREEN = {"label": "green", "probability": 0.99}


def eventually(true: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return true()


@pytest.fixture
def pair(registry: Registry, tmp_path: Path) -> tuple[str, str]:
    """The active model, and one that says green to everything."""
    active = tiny_model(tmp_path / "a", registry)
    registry.point(active)
    return active, tiny_model(tmp_path / "b", registry, "other", bias=GREENISH)


@pytest.fixture
def shadow(registry: Registry) -> Iterator[Shadow]:
    shadow = Shadow(registry, Settings(poll_ms=20, shadow_keep=3))
    shadow.start()
    yield shadow
    shadow.close()


def loaded(shadow: Shadow) -> bool:
    return eventually(lambda: shadow._rate > 0)


def answer(model: str, *predictions: dict[str, Any]) -> dict[str, Any]:
    return {"model": model, "predictions": list(predictions)}


def test_disagreements_are_counted_and_kept_with_their_images(
    registry: Registry, pair: tuple[str, str], shadow: Shadow
) -> None:
    active, other = pair
    registry.start_shadow(other, 1.0)
    assert loaded(shadow)
    for number in range(5):
        files = [jpeg("red", (40 + number, 30)), jpeg("green"), b"broken"]
        shadow.offer(files, answer(active, RED, GREEN, {"error": "broken", "code": "bad_image"}))
    assert eventually(lambda: registry.shadow.report().scored == 10)
    report = registry.shadow.report()
    assert (report.running, report.tag, report.agreed, report.disagreed) == (True, other, 5, 5)
    assert [one.active.label for one in report.disagreements] == ["red"] * 3
    newest = report.disagreements[0]
    assert (newest.active.model, newest.shadow.model) == (active, other)
    assert newest.shadow.label == "green"
    assert newest.shadow.probability > 0.9
    kept = {path.name: path.read_bytes() for path in registry.shadow.images.iterdir()}
    assert set(kept) == {one.image for one in report.disagreements}
    assert kept[newest.image] == jpeg("red", (44, 30))


@pytest.mark.parametrize("interval", [(3.8, 6.2), None])
def test_scores_agree_within_the_active_models_interval_or_a_tenth_of_the_range(
    registry: Registry, tmp_path: Path, shadow: Shadow, interval: tuple[float, float] | None
) -> None:
    active = tiny_regression(tmp_path / "a", registry)
    registry.point(active)
    registry.start_shadow(tiny_regression(tmp_path / "b", registry, "other"), 1.0)
    assert loaded(shadow)
    grey = {"score": 5.0} | ({"interval": interval} if interval else {})
    shadow.offer([jpeg("grey"), jpeg("white")], answer(active, grey, grey))
    assert eventually(lambda: registry.shadow.report().scored == 2)
    report = registry.shadow.report()
    assert (report.agreed, report.disagreed, report.failed) == (1, 1, 0)
    assert report.difference == pytest.approx(5, abs=0.2)
    (white,) = report.disagreements
    assert (white.active.score, white.active.interval) == (5.0, interval)
    assert (white.shadow.score, white.shadow.interval) == (10.0, (8.8, 10.0))
    shown = CliRunner().invoke(app, ["models", "shadow"]).stdout
    assert "10 (8.8 to 10)" in shown
    assert "differ by 2.5" in shown


def test_models_of_different_tasks_are_not_compared(
    registry: Registry, pair: tuple[str, str], tmp_path: Path, shadow: Shadow
) -> None:
    scores = tiny_regression(tmp_path / "r", registry)
    with pytest.raises(Conflict, match="same task"):
        registry.start_shadow(scores, 1.0)
    registry.start_shadow(pair[1], 1.0)
    registry.point(scores)
    assert loaded(shadow)
    shadow.offer([jpeg("red")], answer(scores, {"score": 3.0}))
    assert eventually(lambda: registry.shadow.report().failed == 1)
    assert registry.shadow.report().scored == 0


def test_a_slow_shadow_delays_nobody_and_drops(
    registry: Registry, pair: tuple[str, str], shadow: Shadow, monkeypatch: pytest.MonkeyPatch
) -> None:
    active, other = pair
    registry.start_shadow(other, 1.0)
    assert loaded(shadow)
    answers = Engine.answers

    def slow(self: Engine, pixels: Any) -> Any:
        time.sleep(0.2)
        return answers(self, pixels)

    monkeypatch.setattr(Engine, "answers", slow)
    began = time.monotonic()
    for _ in range(1000):
        shadow.offer([jpeg("red")], answer(active, RED))
    assert time.monotonic() - began < 5
    assert eventually(lambda: registry.shadow.report().scored >= 1)
    report = registry.shadow.report()
    assert report.dropped >= 1000 - 32 - 10
    assert report.scored < 20


def test_the_rate_is_the_share_that_is_scored(
    registry: Registry, pair: tuple[str, str], shadow: Shadow, monkeypatch: pytest.MonkeyPatch
) -> None:
    active, other = pair
    registry.start_shadow(other, 0.25)
    assert loaded(shadow)
    drawn = iter([0.1, 0.3, 0.2, 0.9] * 5)
    monkeypatch.setattr("imgcls.shadow.random.random", lambda: next(drawn))
    shadow.offer([jpeg("green")] * 20, answer(active, *[GREEN] * 20))
    assert eventually(lambda: registry.shadow.report().scored == 10)


def test_stopping_and_starting_again_begins_at_zero(
    registry: Registry, pair: tuple[str, str], shadow: Shadow
) -> None:
    active, other = pair
    registry.start_shadow(other, 1.0)
    assert loaded(shadow)
    shadow.offer([jpeg("red")], answer(active, RED))
    assert eventually(lambda: registry.shadow.report().disagreed == 1)
    registry.shadow.stop()
    assert eventually(lambda: shadow._rate == 0)
    shadow.offer([jpeg("red")], answer(active, RED))
    stopped = registry.shadow.report()
    assert (stopped.running, stopped.tag, stopped.scored) == (False, other, 1)
    registry.start_shadow(other, 1.0)
    assert loaded(shadow)
    assert registry.shadow.report().scored == 0
    assert list(registry.shadow.images.iterdir()) == []


def test_counts_of_all_workers_are_summed_and_those_of_an_earlier_shadow_left_out(
    registry: Registry, pair: tuple[str, str]
) -> None:
    registry.start_shadow(pair[1], 1.0)
    run = registry.shadow.pointer().run
    for _ in range(3):
        registry.shadow.add(run, ShadowCounts(scored=2, agreed=2), [], keep=3)
    registry.shadow.add("earlier", ShadowCounts(scored=100), [], keep=3)
    assert registry.shadow.report().scored == 6


def test_the_gallery_is_bounded_in_bytes_too(
    registry: Registry, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgcls.shadow_files._MAX_GALLERY_MB", 1)
    registry.start_shadow(pair[1], 1.0)
    run = registry.shadow.pointer().run
    one = Opinion(model="m", label="x", probability=1.0)
    for number in range(5):
        found = Disagreement(time="2026-11-21T00:00:00Z", image=f"{number}", active=one, shadow=one)
        registry.shadow.add(run, ShadowCounts(scored=1), [(found, b"x" * 400_000)], keep=9)
    assert [kept.image for kept in registry.shadow.report().disagreements] == ["4", "3"]
    assert {path.name for path in registry.shadow.images.iterdir()} == {"4", "3"}


def test_a_deleted_image_leaves_the_gallery_and_stops_no_count(
    registry: Registry, pair: tuple[str, str]
) -> None:
    registry.start_shadow(pair[1], 1.0)
    run = registry.shadow.pointer().run
    one = Opinion(model="m", label="x", probability=1.0)
    for number in range(2):
        found = Disagreement(time="2026-11-21T00:00:00Z", image=f"{number}", active=one, shadow=one)
        registry.shadow.add(run, ShadowCounts(scored=1), [(found, b"x")], keep=9)
        (registry.shadow.images / "0").unlink(missing_ok=True)
    report = registry.shadow.report()
    assert report.scored == 2
    assert [kept.image for kept in report.disagreements] == ["1"]


def test_a_shadow_is_protected_and_is_never_the_active_model(
    registry: Registry, pair: tuple[str, str]
) -> None:
    active, other = pair
    with pytest.raises(Conflict):
        registry.start_shadow(active, 1.0)
    with pytest.raises(ModelNotFound):
        registry.start_shadow("nothing", 1.0)
    registry.start_shadow("other", 1.0)
    with pytest.raises(ModelInUse, match="shadow"):
        registry.remove(other)
    assert registry.remove_all() == []
    registry.shadow.stop()
    assert registry.remove(other) == other


def test_the_command_line_starts_shows_and_stops_it(
    registry: Registry, pair: tuple[str, str]
) -> None:
    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["models", "shadow", *words])

    assert run("report").exit_code == 0
    assert run("other", "--rate", "0.5").exit_code == 0
    assert registry.shadow.pointer().tag == pair[1]
    assert pair[1] in run("--json").stdout
    assert run("--off").exit_code == 0
    assert registry.shadow.pointer().tag is None
    (registry.folder(pair[1]) / GRAPH_FILE).write_bytes(b"no graph")
    refused = run("other")
    assert refused.exit_code != 0
    assert registry.shadow.pointer().tag is None
    assert refused.exception is None or isinstance(refused.exception, SystemExit | BadModel)


def test_both_workers_of_a_service_follow_and_count(tmp_path: Path) -> None:
    server = start_server(tmp_path / "two", workers=2)
    try:
        active = tiny_model(tmp_path / "a", server.registry)
        other = tiny_model(tmp_path / "b", server.registry, "other", bias=GREENISH)
        clients = [httpx.Client(base_url=server.url, timeout=30) for _ in range(8)]
        clients[0].post("/set", json={"tag": active}).raise_for_status()
        assert clients[0].post("/shadow", json={"tag": active}).status_code == 409
        assert clients[0].post("/shadow", json={}).status_code == 400
        assert clients[0].post("/shadow", json={"tag": other, "rate": 2}).status_code == 400
        started = clients[0].post("/shadow", json={"tag": other, "rate": 1}).json()
        assert (started["running"], started["tag"], started["scored"]) == (True, other, 0)
        time.sleep(1.5)
        for _ in range(3):
            for client in clients:
                files = {"images": ("a.jpg", jpeg("red"), "image/jpeg")}
                body = client.post("/predict", files=files).json()
                assert (body["model"], body["predictions"][0]["label"]) == (active, "red")

        def report() -> Any:
            return clients[0].post("/shadow_report").json()

        assert eventually(lambda: report()["disagreed"] + report()["dropped"] == 24)
        assert report()["disagreements"][0]["shadow"]["label"] == "green"
        removed = clients[0].post("/remove", json={"tag": other})
        assert removed.json()["code"] == "model_in_use"
        assert not clients[0].post("/shadow", json={"tag": None}).json()["running"]
        assert clients[0].post("/remove", json={"tag": other}).status_code == 200
        for client in clients:
            client.close()
    finally:
        server.stop()
