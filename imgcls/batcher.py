"""Adaptive batching for one engine: images that wait together run together.

The first image of an idle engine runs at once, so nobody waits at low load. While the engine is
busy, images gather; the next run takes all of them, so batches fill by themselves under load, up to
what runs in `batch_ms` at the engine's speed so far. Where what gathers is worth it, runs go side
by side; a GPU takes all that fits. The queue is bounded, and what nobody waits for any more is
dropped unrun. Only clean arrays of one shape get here, so no request can spoil another's batch.
"""

import asyncio
import time
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import cast

import numpy as np

from imgcls.engine import Floats, batch_size
from imgcls.errors import Overloaded
from imgcls.images import Pixels
from imgcls.watch import Watched

_WORTH_A_RUN = 0.001
"""Seconds of work: with less of it waiting, a run beside another one costs more than it saves."""
_WEIGHT = 0.1
"""Of the newest run in the average time of an image."""


@dataclass(slots=True)
class _Waiting:
    pixels: Pixels
    deadline: float
    answer: "asyncio.Future[Floats]"


class Batcher:
    """One engine and its queue. All methods belong to one event loop.

    `executor` runs the engine. `max_queue` bounds the images that wait; `max_batch` those that run
    together.
    """

    def __init__(
        self, engine: Watched, executor: Executor, *, max_batch: int, max_queue: int
    ) -> None:
        self.engine = engine
        self._executor = executor
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._queue: deque[_Waiting] = deque()
        self._runners: set[asyncio.Task[None]] = set()
        self._seconds = engine.seconds

    @property
    def waiting(self) -> int:
        """Images in the queue; those that run now are not."""
        return len(self._queue)

    async def submit(self, pixels: Pixels, *, deadline: float) -> Floats:
        """`uint8 [H, W, 3]` to its probabilities, `float32 [C]`, or its score, `float32 []`.

        `deadline` is a `time.monotonic()`: later than that the image is not run any more. Raises
        `Overloaded` where the queue is full or the deadline has passed.
        """
        if len(self._queue) >= self._max_queue:
            raise Overloaded(f"{len(self._queue)} images wait already; try again in a moment.")
        answer: asyncio.Future[Floats] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(pixels, deadline, answer))
        if not self._runners or (
            len(self._runners) < self.engine.parallel
            and len(self._queue) * self._seconds >= _WORTH_A_RUN
        ):
            self._runners.add(asyncio.create_task(self._run()))
        return await answer

    async def _run(self) -> None:
        try:
            while self._queue:
                if batch := self._next_batch():
                    await self._answer(batch)
        finally:  # in the same step in which the queue was found empty
            self._runners.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _answer(self, batch: list[_Waiting]) -> None:
        pixels = np.stack([waiting.pixels for waiting in batch])
        loop = asyncio.get_running_loop()
        try:
            rows, seconds = await loop.run_in_executor(self._executor, self._timed, pixels)
        except Exception as err:  # whatever it was, these callers must hear of it
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(err)
            return
        self._seconds += _WEIGHT * (seconds / len(batch) - self._seconds)
        for waiting, row in zip(batch, rows, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(row)

    def _timed(self, pixels: Pixels) -> tuple[Floats, float]:
        started = time.perf_counter()
        return self.engine.answers(pixels), time.perf_counter() - started

    def _next_batch(self) -> list[_Waiting]:
        """Take from the queue what still has somebody waiting for it, as much as may run."""
        batch: list[_Waiting] = []
        size, now = self._max_batch, time.monotonic()
        if self.engine.on_cpu:
            size = batch_size(self._seconds, size)
        while self._queue and len(batch) < size:
            waiting = self._queue.popleft()
            if waiting.answer.done():
                continue
            if waiting.deadline < now:
                waiting.answer.set_exception(
                    Overloaded("The request waited longer than its deadline; try again later.")
                )
                continue
            batch.append(waiting)
        return batch
