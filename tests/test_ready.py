"""`/readyz` is true where predictions work, and only there."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from imgcls.card import GRAPH_FILE
from imgcls.engine import Engine
from imgcls.predictor import Predictor
from imgcls.registry import Registry
from tests.conftest import Server
from tests.fakes import jpeg, tiny_model


def run(registry: Registry, check: Callable[[Predictor], Awaitable[None]]) -> None:
    async def main() -> None:
        predictor = Predictor(registry)
        await predictor.start()
        try:
            await check(predictor)
        finally:
            await predictor.stop()

    asyncio.run(main())


def test_readyz_is_503_while_the_active_model_cannot_be_loaded(
    server: Server, tmp_path: Path
) -> None:
    url = f"{server.url}/readyz"
    assert httpx.get(url).status_code == 200  # nothing is active yet
    tag = tiny_model(tmp_path / "m", server.registry)
    graph = server.registry.folder(tag) / GRAPH_FILE
    whole = graph.read_bytes()
    graph.write_bytes(b"no graph")
    server.registry.point(tag)
    answer = httpx.get(url, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (503, "http_error")
    assert httpx.get(f"{server.url}/livez").status_code == 200
    graph.write_bytes(whole)
    assert httpx.post(f"{server.url}/set", json={"tag": tag}, timeout=30).status_code == 200
    assert httpx.get(url, timeout=30).status_code == 200
    server.registry.unset()


def test_the_old_model_goes_on_and_so_does_readiness(registry: Registry, tmp_path: Path) -> None:
    a, b = (tiny_model(tmp_path / name, registry) for name in "ab")
    registry.point(a)

    async def check(predictor: Predictor) -> None:
        (registry.folder(b) / GRAPH_FILE).write_bytes(b"no graph")
        registry.point(b)
        await asyncio.sleep(0.6)
        assert (await predictor.predict([jpeg()]))["model"] == a
        assert await predictor.ready()

    run(registry, check)


def test_an_engine_that_fails_or_gives_nonsense_is_not_ready(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.point(tiny_model(tmp_path / "m", registry))

    async def check(predictor: Predictor) -> None:
        assert await predictor.ready()
        monkeypatch.setattr("imgcls.predictor._READY_SECONDS", 0)
        with monkeypatch.context() as broken:
            broken.setattr(Engine, "answers", lambda *_: 1 / 0)
            assert not await predictor.ready()
            broken.setattr(Engine, "answers", lambda *_: np.full((1, 3), np.nan, np.float32))
            assert not await predictor.ready()
        assert await predictor.ready()

    run(registry, check)


def test_an_engine_that_hangs_is_not_ready(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.point(tiny_model(tmp_path / "m", registry))
    monkeypatch.setattr("imgcls.predictor._PROBE_SECONDS", 0.1)

    async def check(predictor: Predictor) -> None:
        monkeypatch.setattr(Engine, "answers", lambda *_: time.sleep(0.5))
        assert not await predictor.ready()

    run(registry, check)


def test_an_answer_is_proof_for_a_while(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.point(tiny_model(tmp_path / "m", registry))

    async def check(predictor: Predictor) -> None:
        await predictor.predict([jpeg()])
        monkeypatch.setattr(Engine, "answers", lambda *_: 1 / 0)
        assert await predictor.ready()
        monkeypatch.setattr("imgcls.predictor._READY_SECONDS", 0)
        assert not await predictor.ready()

    run(registry, check)


def test_a_damaged_pointer_is_not_ready(registry: Registry) -> None:
    registry.home.mkdir(parents=True)
    (registry.home / "active.json").write_text("{")

    async def check(predictor: Predictor) -> None:
        assert not await predictor.ready()
        registry._pointer.unlink()
        assert await predictor.ready()

    run(registry, check)
