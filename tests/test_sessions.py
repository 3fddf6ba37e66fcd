"""Models in memory: loaded once, kept while unchanged, let go within a budget."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgcls import sessions
from imgcls.batcher import Batcher
from imgcls.card import GRAPH_FILE
from imgcls.engine import Engine, release_memory
from imgcls.errors import BadModel, ModelNotFound
from imgcls.metrics import get_metrics
from imgcls.registry import Registry
from imgcls.sessions import Passed, Sessions, pass_gate
from imgcls.settings import Settings, get_settings
from imgcls.watch import Watched
from tests.fakes import jpeg, tiny_model

MB = 1024 * 1024
RED = np.full((32, 32, 3), (255, 0, 0), np.uint8)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tags in the order in which they pass the gate; each is said to need 10 MiB."""
    tags: list[str] = []

    def ten_each(folder: Path, max_batch: int) -> Passed:
        model = pass_gate(folder, max_batch)
        tags.append(model.engine.card.tag)
        return replace(model, memory=10 * MB)

    monkeypatch.setattr(sessions, "pass_gate", ten_each)
    return tags


def run(registry: Registry, check: Callable[[Sessions], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as thread:
            limits = Settings(max_batch=2, **settings)

            def new_batcher(engine: Engine) -> Batcher:
                return Batcher(
                    Watched(engine, get_metrics().model(engine.card.tag)),
                    thread,
                    max_batch=2,
                    max_queue=9,
                )

            await check(Sessions(registry, limits, thread, new_batcher))

    asyncio.run(main())


def models(registry: Registry, tmp_path: Path, count: int) -> list[str]:
    return [tiny_model(tmp_path / str(number), registry) for number in range(count)]


def test_a_model_that_many_ask_for_at_once_is_loaded_once(
    registry: Registry, tmp_path: Path, loads: list[str]
) -> None:
    (tag,) = models(registry, tmp_path, 1)

    async def check(held: Sessions) -> None:
        found = await asyncio.gather(*(held.load(tag) for _ in range(50)))
        assert len(set(map(id, found))) == 1
        assert held.ready(tag) is found[0]

    run(registry, check)
    assert loads == [tag]


def test_back_and_forth_loads_nothing_again_until_a_file_has_changed(
    registry: Registry, tmp_path: Path, loads: list[str]
) -> None:
    a, b = models(registry, tmp_path, 2)

    async def check(held: Sessions) -> None:
        for tag in (a, b) * 5:
            await held.load(tag)
        assert loads == [a, b]
        golden = registry.folder(a) / "golden" / "00.jpg"
        golden.write_bytes(golden.read_bytes())
        await held.load(a)
        assert loads == [a, b, a]
        (registry.folder(b) / GRAPH_FILE).write_bytes(b"no graph")
        with pytest.raises(BadModel):
            await held.load(b)

    run(registry, check)


def test_the_least_recently_used_go_when_the_budget_is_full(
    registry: Registry, tmp_path: Path, loads: list[str]
) -> None:
    a, b, c, d = models(registry, tmp_path, 4)

    async def check(held: Sessions) -> None:
        held.active = await held.load(a)
        await held.load(b)
        await held.load(c)
        assert held.loaded() == {a: 10 * MB, b: 10 * MB, c: 10 * MB}
        assert held.ready(b) is not None  # used again, so that c is the oldest
        await held.load(d)
        assert list(held.loaded()) == [a, b, d]
        held.active = None
        await held.load(c)
        assert list(held.loaded()) == [b, d, c]

    run(registry, check, model_memory_mb=30)


def test_only_so_many_stay_beside_the_active_one(
    registry: Registry, tmp_path: Path, loads: list[str]
) -> None:
    tags = models(registry, tmp_path, 5)

    async def check(held: Sessions) -> None:
        held.active = await held.load(tags[0])
        for tag in tags[1:]:
            await held.load(tag)
        assert list(held.loaded()) == [tags[0], tags[3], tags[4]]

    run(registry, check, max_loaded_models=2)


def test_a_model_larger_than_the_budget_is_loaded_once_all_the_same(
    registry: Registry, tmp_path: Path, loads: list[str]
) -> None:
    a, b = models(registry, tmp_path, 2)

    async def check(held: Sessions) -> None:
        held.active = await held.load(a)
        for _ in range(3):
            await held.load(b)
            await held.sweep()
        assert held.ready(b) is not None

    run(registry, check, model_memory_mb=1)
    assert loads == [a, b]


def test_a_model_that_was_let_go_still_answers_those_who_hold_it(
    registry: Registry, tmp_path: Path, loads: list[str]
) -> None:
    tags = models(registry, tmp_path, 3)

    async def check(held: Sessions) -> None:
        batcher = await held.load(tags[0])
        under_way = [
            asyncio.create_task(batcher.submit(RED, deadline=float("inf"))) for _ in range(9)
        ]
        for tag in tags[1:]:
            await held.load(tag)
        await held.sweep()
        assert tags[0] not in held.loaded()
        assert [int(np.argmax(row)) for row in await asyncio.gather(*under_way)] == [0] * 9

    run(registry, check, model_memory_mb=1)


def test_a_removed_model_is_not_ready_and_is_let_go(
    registry: Registry, tmp_path: Path, loads: list[str]
) -> None:
    (tag,) = models(registry, tmp_path, 1)

    async def check(held: Sessions) -> None:
        await held.load(tag)
        registry.remove(tag)
        assert held.ready(tag) is None
        await held.sweep()
        assert held.loaded() == {}
        with pytest.raises(ModelNotFound):
            await held.load(tag)

    run(registry, check)


def test_a_failed_load_is_tried_again(registry: Registry, tmp_path: Path, loads: list[str]) -> None:
    (tag,) = models(registry, tmp_path, 1)
    golden = registry.folder(tag) / "golden" / "00.jpg"
    good = golden.read_bytes()
    golden.write_bytes(jpeg("blue"))

    async def check(held: Sessions) -> None:
        refused = await asyncio.gather(*(held.load(tag) for _ in range(3)), return_exceptions=True)
        assert {type(err).__name__ for err in refused} == {"GateFailed"}
        golden.write_bytes(good)
        await held.load(tag)

    run(registry, check)


def test_the_memory_of_a_model_is_what_the_process_grew_by(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 images of 512 x 512 need 192 MiB as float32 between two nodes of the graph."""
    monkeypatch.setenv("IMGCLS_BATCH_MS", "1000000")
    get_settings.cache_clear()
    tag = tiny_model(tmp_path / "a", registry, size=512)
    release_memory()
    passed = pass_gate(registry.folder(tag), 64)
    assert passed.engine.card.tag == tag
    assert 150 * MB < passed.memory < 800 * MB
