"""The predictor: answers, refusals in place, and following the active model."""

import asyncio
import io
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imgcls.card import GRAPH_FILE
from imgcls.engine import Engine, gate
from imgcls.errors import (
    BadArgument,
    BadModel,
    BrokenImage,
    GateFailed,
    ModelNotFound,
    NoActiveModel,
    Overloaded,
)
from imgcls.files import Stamp
from imgcls.predictor import Predictor
from imgcls.registry import Registry
from imgcls.sessions import Passed, pass_gate
from imgcls.settings import Settings
from tests.fakes import jpeg, no_number_for_black, tiny_model

GREENISH = (0.0, 30.0, 0.0)


def run(
    registry: Registry,
    check: Callable[[Predictor], Awaitable[None]],
    settings: Settings | None = None,
) -> None:
    async def main() -> None:
        predictor = Predictor(registry, settings)
        await predictor.start()
        try:
            await check(predictor)
        finally:
            await predictor.stop()

    asyncio.run(main())


async def label(predictor: Predictor, colour: str, model: str | None = None) -> str:
    answer = await predictor.predict([jpeg(colour)], model=model)
    return str(answer["predictions"][0]["label"])


def test_each_image_gets_its_label_and_bad_ones_an_error_in_their_place(
    registry: Registry, tmp_path: Path
) -> None:
    tag = tiny_model(tmp_path / "a", registry)
    registry.point(tag)

    async def check(predictor: Predictor) -> None:
        files = [jpeg("red"), b"garbage", jpeg("green"), jpeg("blue", (2000, 1500))]
        answer = await predictor.predict(files, top_k=2)
        assert answer["model"] == tag
        red, bad, green, blue = answer["predictions"]
        assert (red["label"], green["label"], blue["label"]) == ("red", "green", "blue")
        assert next(iter(red["probabilities"])) == "red"
        assert len(red["probabilities"]) == 2
        assert bad["code"] == "unsupported_image"
        assert "label" not in bad

    run(registry, check)


def test_giant_images_hold_up_no_ordinary_ones(registry: Registry, tmp_path: Path) -> None:
    registry.point(tiny_model(tmp_path / "a", registry))
    buffer = io.BytesIO()
    Image.new("RGB", (5000, 5000), "blue").save(buffer, "WEBP", lossless=True, method=0)
    giant = buffer.getvalue()
    assert len(giant) < 1000
    finished: list[str] = []

    async def ask(predictor: Predictor, picture: bytes) -> None:
        answer = await predictor.predict([picture])
        finished.append(answer["predictions"][0]["label"])

    async def check(predictor: Predictor) -> None:
        giants = [asyncio.create_task(ask(predictor, giant)) for _ in range(3)]
        await asyncio.sleep(0.05)  # they are being decoded now
        await ask(predictor, jpeg("red", (1600, 1200)))
        await asyncio.gather(*giants)
        assert finished == ["red", "blue", "blue", "blue"]

    run(registry, check)


def test_one_bad_image_alone_is_an_error(registry: Registry, tmp_path: Path) -> None:
    registry.point(tiny_model(tmp_path / "a", registry))

    async def check(predictor: Predictor) -> None:
        with pytest.raises(BrokenImage):
            await predictor.predict([jpeg()[:400]])
        with pytest.raises(BadArgument):
            await predictor.predict([])
        with pytest.raises(BadArgument, match="two classes"):
            await predictor.predict([jpeg()], threshold=0.5)
        with pytest.raises(BadArgument, match="top_k"):
            await predictor.predict([jpeg()], top_k=0)

    run(registry, check)


def test_an_image_for_which_the_model_has_no_number_costs_its_neighbours_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    tag = tiny_model(tmp_path / "a", registry, change=no_number_for_black)
    registry.point(tag)
    black = io.BytesIO()
    Image.new("RGB", (8, 8)).save(black, "PNG")

    async def check(predictor: Predictor) -> None:
        files = [jpeg("red"), black.getvalue(), jpeg("blue")]
        red, none, blue = (await predictor.predict(files))["predictions"]
        assert (red["label"], blue["label"]) == ("red", "blue")
        assert none["code"] == "bad_model"
        assert tag in none["error"]
        with pytest.raises(BadModel, match="no number"):
            await predictor.predict([black.getvalue()])

    run(registry, check)


def test_without_a_model_the_answer_says_how_to_get_one(registry: Registry, tmp_path: Path) -> None:
    async def check(predictor: Predictor) -> None:
        with pytest.raises(NoActiveModel, match="/set"):
            await predictor.predict([jpeg()])
        with pytest.raises(ModelNotFound):
            await predictor.predict([jpeg()], model="nothing")
        tag = tiny_model(tmp_path / "a", registry)
        assert await label(predictor, "blue", tag) == "blue"
        assert await label(predictor, "blue", "tiny") == "blue"
        with pytest.raises(NoActiveModel):
            await predictor.predict([jpeg()])

    run(registry, check)


def test_the_threshold_decides_between_two_classes(registry: Registry, tmp_path: Path) -> None:
    tag = tiny_model(tmp_path / "a", registry, labels=("red", "green"), threshold=0.6)
    plain = tiny_model(tmp_path / "b", registry, "plain", labels=("red", "green"))
    registry.point(tag)

    async def check(predictor: Predictor) -> None:
        grey = jpeg("grey")
        even = (await predictor.predict([grey]))["predictions"][0]
        assert even["label"] == "red"
        assert abs(even["probability"] - 0.5) < 0.1
        for model in (tag, plain):
            moved = await predictor.predict([grey], model=model, threshold=0.3)
            assert moved["predictions"][0]["label"] == "green"

    run(registry, check)


def test_set_and_rollback_switch_what_is_answered(registry: Registry, tmp_path: Path) -> None:
    a = tiny_model(tmp_path / "a", registry)
    b = tiny_model(tmp_path / "b", registry, bias=GREENISH)

    async def check(predictor: Predictor) -> None:
        await predictor.set(a)
        assert await label(predictor, "red") == "red"
        await predictor.set(b)
        assert await label(predictor, "red") == "green"
        await predictor.rollback()
        assert await label(predictor, "red") == "red"
        assert await predictor.unset() == a
        with pytest.raises(NoActiveModel):
            await predictor.predict([jpeg()])

    run(registry, check)


def test_a_model_that_fails_its_gate_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    a = tiny_model(tmp_path / "a", registry)
    b = tiny_model(tmp_path / "b", registry, bias=GREENISH)
    c = tiny_model(tmp_path / "c", registry)
    (registry.folder(b) / GRAPH_FILE).write_bytes(b"no graph")
    (registry.folder(c) / "golden" / "00.jpg").write_bytes(jpeg("blue"))

    async def check(predictor: Predictor) -> None:
        await predictor.set(a)
        stamp = registry.stamp()
        with pytest.raises(BadModel):
            await predictor.set(b)
        with pytest.raises(GateFailed):
            await predictor.set(c)
        assert registry.stamp() == stamp
        assert await label(predictor, "red") == "red"

    run(registry, check)


def test_a_predictor_follows_what_others_set(registry: Registry, tmp_path: Path) -> None:
    a = tiny_model(tmp_path / "a", registry)
    b = tiny_model(tmp_path / "b", registry, bias=GREENISH)
    registry.point(a)

    async def check(predictor: Predictor) -> None:
        assert await label(predictor, "red") == "red"
        registry.point(b)  # as another process would
        for _ in range(20):
            await asyncio.sleep(0.05)
            if await label(predictor, "red") == "green":
                break
        assert await label(predictor, "red") == "green"
        registry.unset()
        with pytest.raises(NoActiveModel):
            await predictor.predict([jpeg()])

    run(registry, check)


def test_a_pointer_to_a_broken_model_keeps_the_old_one(registry: Registry, tmp_path: Path) -> None:
    a = tiny_model(tmp_path / "a", registry)
    b = tiny_model(tmp_path / "b", registry, bias=GREENISH)
    registry.point(a)

    async def check(predictor: Predictor) -> None:
        (registry.folder(b) / GRAPH_FILE).write_bytes(b"no graph")
        registry.point(b)
        await asyncio.sleep(0.6)
        assert await label(predictor, "red") == "red"

    run(registry, check)


def test_a_set_by_another_worker_in_between_is_not_lost(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = tiny_model(tmp_path / "a", registry)
    b = tiny_model(tmp_path / "b", registry, bias=GREENISH)

    async def check(predictor: Predictor) -> None:
        point = registry.point

        def and_then_another(tag: str) -> Stamp:
            stamp = point(tag)
            point(b)
            return stamp

        monkeypatch.setattr(registry, "point", and_then_another)
        await predictor.set(a)
        await asyncio.sleep(1)
        assert await label(predictor, "red") == "green"

    run(registry, check)


def test_following_survives_any_failure(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = tiny_model(tmp_path / "a", registry)
    b = tiny_model(tmp_path / "b", registry, bias=GREENISH)
    registry.point(a)

    async def check(predictor: Predictor) -> None:
        with monkeypatch.context() as broken:
            broken.setattr("imgcls.sessions.gate", lambda *_, **__: 1 / 0)
            registry.point(b)
            await asyncio.sleep(0.5)
            assert await label(predictor, "red") == "red"
        await asyncio.sleep(1)
        assert await label(predictor, "red") == "green"

    run(registry, check)


def test_a_failure_of_the_metrics_stops_neither_answers_nor_following(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = tiny_model(tmp_path / "a", registry)
    b = tiny_model(tmp_path / "b", registry, bias=GREENISH)
    registry.point(a)
    monkeypatch.setattr("imgcls.metrics.Metrics.publish", lambda *_, **__: 1 / 0)

    async def check(predictor: Predictor) -> None:
        await asyncio.sleep(0.3)
        assert await label(predictor, "red") == "red"
        registry.point(b)
        await asyncio.sleep(0.6)
        assert predictor.active == b

    run(registry, check)


def test_too_many_images_under_way_are_refused(registry: Registry, tmp_path: Path) -> None:
    registry.point(tiny_model(tmp_path / "a", registry))

    async def check(predictor: Predictor) -> None:
        with predictor.admitted(1000):
            with pytest.raises(Overloaded), predictor.admitted(25):
                pass
            with predictor.admitted(24):
                pass
        with pytest.raises(BadArgument), predictor.admitted(1025):
            pass

    run(registry, check)


def test_too_many_bytes_under_way_are_refused(registry: Registry, tmp_path: Path) -> None:
    registry.point(tiny_model(tmp_path / "a", registry))
    mebibyte = 1024 * 1024

    async def check(predictor: Predictor) -> None:
        def full() -> bool:
            try:
                with predictor.admitted(1, 1):
                    return False
            except Overloaded:
                return True

        with predictor.admitted(1, 600 * mebibyte):  # alone, whatever its size
            assert full()
        with predictor.admitted(1, 500 * mebibyte):
            assert not full()
            with predictor.admitted(1, 12 * mebibyte):
                assert full()
        assert not full()

    run(registry, check)


def test_a_removed_model_answers_nobody_even_where_the_pointer_was_not_followed_yet(
    registry: Registry, tmp_path: Path
) -> None:
    a = tiny_model(tmp_path / "a", registry)
    b = tiny_model(tmp_path / "b", registry, bias=GREENISH)
    registry.point(a)
    lazy = Settings(poll_ms=3_600_000)

    async def check(predictor: Predictor) -> None:
        assert await label(predictor, "red", a) == "red"
        registry.point(b)  # as another worker would
        assert await label(predictor, "red") == "red"
        registry.remove(a)
        assert await label(predictor, "red") == "green"
        with pytest.raises(ModelNotFound):
            await label(predictor, "red", a)

    run(registry, check, lazy)


def test_a_request_under_way_finishes_with_the_model_it_began_with(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = tiny_model(tmp_path / "a", registry)
    b = tiny_model(tmp_path / "b", registry, bias=GREENISH)
    entered, go_on = threading.Event(), threading.Event()
    answers = Engine.answers

    def slow(self: Engine, pixels: Any) -> Any:
        if self.card.tag == a:
            entered.set()
            go_on.wait(10)
        return answers(self, pixels)

    async def check(predictor: Predictor) -> None:
        await predictor.set(b)
        await predictor.set(a)
        monkeypatch.setattr(Engine, "answers", slow)
        under_way = asyncio.create_task(predictor.predict([jpeg("red")]))
        assert await asyncio.to_thread(entered.wait, 10)
        await predictor.set(b)
        registry.remove(a)
        await asyncio.sleep(0.5)  # the follower lets the removed model go
        assert a not in predictor.loaded()
        go_on.set()
        assert (await under_way)["model"] == a
        assert await label(predictor, "red") == "green"

    run(registry, check)


def test_a_model_that_began_to_load_early_is_not_loaded_again(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = tiny_model(tmp_path / "one", registry)
    registry.point(tag)
    early: Future[Passed] = Future()
    early.set_result(pass_gate(registry.folder(tag), 1))
    monkeypatch.setattr("imgcls.sessions.gate", None)

    async def run() -> str:
        predictor = Predictor(registry)
        await predictor.start(early)
        try:
            return str((await predictor.predict([jpeg()]))["model"])
        finally:
            await predictor.stop()

    assert asyncio.run(run()) == tag


@pytest.mark.parametrize("fails", [True, False])
def test_an_early_model_that_failed_or_is_another_is_left_alone(
    registry: Registry, tmp_path: Path, fails: bool
) -> None:
    tag = tiny_model(tmp_path / "one", registry)
    other = tiny_model(tmp_path / "two", registry, "other")
    registry.point(tag)
    early: Future[Passed] = Future()
    if fails:
        early.set_exception(OSError("gone"))
    else:
        early.set_result(pass_gate(registry.folder(other), 1))

    async def run() -> str:
        predictor = Predictor(registry)
        await predictor.start(early)
        try:
            return str((await predictor.predict([jpeg()]))["model"])
        finally:
            await predictor.stop()

    assert asyncio.run(run()) == tag


def test_a_model_that_loads_for_too_long_is_refused_and_answers_later(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = tiny_model(tmp_path / "a", registry)
    go_on = threading.Event()

    def slow(*args: Any, **options: Any) -> Engine:
        go_on.wait(10)
        return gate(*args, **options)

    async def check(predictor: Predictor) -> None:
        monkeypatch.setattr("imgcls.sessions.gate", slow)
        with pytest.raises(Overloaded, match="loaded"):
            await label(predictor, "red", tag)
        go_on.set()
        for _ in range(50):
            await asyncio.sleep(0.05)
            if tag in predictor.loaded():
                break
        assert await label(predictor, "red", tag) == "red"

    run(registry, check, Settings(deadline_ms=200))
