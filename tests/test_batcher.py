"""Adaptive batching: alone at once, together under load, bounded, nobody waits for the absent."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from imgcls.batcher import Batcher
from imgcls.errors import Overloaded
from imgcls.settings import get_settings

LATER = time.monotonic() + 3600


class SlowEngine:
    """Answers each image with its own first value; runs only while `gate` is open."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.on_cpu = True
        self.parallel = 1
        self.seconds = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.fail = False

    def answers(self, pixels: np.ndarray) -> np.ndarray:
        self.gate.wait(10)
        self.batches.append(len(pixels))
        if self.fail:
            raise RuntimeError("the engine broke")
        return pixels[:, 0, 0, :1].astype(np.float32)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engines here stand still at will: that must not count as slowness."""
    monkeypatch.setenv("IMGCLS_BATCH_MS", "60000")
    get_settings.cache_clear()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def image(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


def make(engine: SlowEngine, executor: ThreadPoolExecutor, **limits: int) -> Batcher:
    return Batcher(engine, executor, **({"max_batch": 8, "max_queue": 100} | limits))  # type: ignore[arg-type]


def test_every_image_gets_its_own_answer(executor: ThreadPoolExecutor) -> None:
    engine = SlowEngine()

    async def run() -> list[float]:
        batcher = make(engine, executor)
        rows = await asyncio.gather(*(batcher.submit(image(n), deadline=LATER) for n in range(50)))
        return [float(row[0]) for row in rows]

    assert asyncio.run(run()) == list(range(50))
    assert max(engine.batches) <= 8


def test_batches_fill_while_the_engine_is_busy(executor: ThreadPoolExecutor) -> None:
    engine = SlowEngine()

    async def run() -> None:
        batcher = make(engine, executor)
        engine.gate.clear()
        first = asyncio.create_task(batcher.submit(image(0), deadline=LATER))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batcher.submit(image(n), deadline=LATER)) for n in range(20)]
        await asyncio.sleep(0.05)
        engine.gate.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    assert engine.batches == [1, 8, 8, 4]


def test_a_full_queue_refuses_at_once(executor: ThreadPoolExecutor) -> None:
    engine = SlowEngine()

    async def run() -> None:
        batcher = make(engine, executor, max_queue=3)
        engine.gate.clear()
        tasks = [asyncio.create_task(batcher.submit(image(0), deadline=LATER))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(batcher.submit(image(n), deadline=LATER)) for n in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            await batcher.submit(image(9), deadline=LATER)
        engine.gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_late_and_abandoned_images_are_not_run(executor: ThreadPoolExecutor) -> None:
    engine = SlowEngine()

    async def run() -> None:
        batcher = make(engine, executor)
        engine.gate.clear()
        first = asyncio.create_task(batcher.submit(image(0), deadline=LATER))
        await asyncio.sleep(0.02)
        late = asyncio.create_task(batcher.submit(image(1), deadline=time.monotonic() + 0.01))
        gone = asyncio.create_task(batcher.submit(image(2), deadline=LATER))
        good = asyncio.create_task(batcher.submit(image(3), deadline=LATER))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        engine.gate.set()
        assert float((await good)[0]) == 3
        await first
        with pytest.raises(Overloaded, match="deadline"):
            await late

    asyncio.run(run())
    assert engine.batches == [1, 1]


def test_an_engine_failure_reaches_its_callers_and_no_later_ones(
    executor: ThreadPoolExecutor,
) -> None:
    engine = SlowEngine()

    async def run() -> None:
        batcher = make(engine, executor)
        engine.fail = True
        with pytest.raises(RuntimeError, match="broke"):
            await batcher.submit(image(1), deadline=LATER)
        engine.fail = False
        assert float((await batcher.submit(image(5), deadline=LATER))[0]) == 5

    asyncio.run(run())


def test_batches_of_slow_images_stay_within_the_time_of_a_run(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGCLS_BATCH_MS", "20")
    get_settings.cache_clear()
    engine = SlowEngine()
    engine.seconds = 0.009

    async def run() -> None:
        batcher = make(engine, executor)
        await asyncio.gather(*(batcher.submit(image(n), deadline=LATER) for n in range(3)))

    asyncio.run(run())
    assert engine.batches == [2, 1]


@pytest.mark.parametrize(("seconds", "runs"), [(1.0, 2), (0.0, 1)])
def test_runs_go_side_by_side_where_the_work_is_worth_it(seconds: float, runs: int) -> None:
    engine = SlowEngine()
    engine.parallel, engine.seconds = 2, seconds
    engine.gate.clear()
    most = 0

    async def run(threads: ThreadPoolExecutor) -> None:
        nonlocal most
        batcher = make(engine, threads, max_batch=1)
        waiting = [asyncio.create_task(batcher.submit(image(n), deadline=LATER)) for n in range(5)]
        await asyncio.sleep(0.1)
        most = len(batcher._runners)
        engine.gate.set()
        await asyncio.gather(*waiting)

    with ThreadPoolExecutor(4) as threads:
        asyncio.run(run(threads))
    assert most == runs
    assert engine.batches == [1] * 5


def test_a_gpu_takes_whole_batches(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGCLS_BATCH_MS", "1")
    get_settings.cache_clear()
    engine = SlowEngine()
    engine.on_cpu, engine.seconds = False, 1.0

    async def run() -> None:
        batcher = make(engine, executor)
        await asyncio.gather(*(batcher.submit(image(n), deadline=LATER) for n in range(8)))

    asyncio.run(run())
    assert engine.batches == [8]
