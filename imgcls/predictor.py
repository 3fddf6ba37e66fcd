"""Images in, predictions out: decode, batch, answer, and follow the active model.

One predictor a worker. It looks at the active pointer with every request and a few times a second
besides; a new model is loaded and checked beside the old one, which answers until the moment of the
switch. Requests that are under way stay with the model they began with.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from imgcls import images
from imgcls.batcher import Batcher
from imgcls.card import Preprocessing
from imgcls.engine import Engine, side_by_side
from imgcls.errors import (
    BadArgument,
    BadImage,
    BadModel,
    ImgclsError,
    NoActiveModel,
    Overloaded,
)
from imgcls.files import Stamp
from imgcls.metrics import get_metrics
from imgcls.prediction import render
from imgcls.registry import Registry
from imgcls.sessions import Passed, Sessions
from imgcls.settings import Settings, get_settings
from imgcls.watch import Watched

logger = logging.getLogger("imgcls.predictor")

_INLINE_BYTES = 16 * 1024
_INLINE_PIXELS = 128 * 128
"""Images up to this are decoded in the event loop: quicker than handing them to a thread."""
_DECODE_THREADS = 2
_GIANT_PIXELS = 16_000_000
"""Images above this are decoded one at a time in a thread of their own: a few bytes may ask for
seconds and a gigabyte, which must neither add up nor hold up ordinary images."""
_READY_SECONDS = 2.0
"""An answer proves for so long that predictions work."""
_PROBE_SECONDS = 5.0
"""A blank image must be answered within this."""


class Predictor:
    """Serves one registry. All coroutines belong to one event loop."""

    def __init__(self, registry: Registry, settings: Settings | None = None) -> None:
        self.registry = registry
        self._settings = settings or get_settings()
        self._engine_threads = ThreadPoolExecutor(side_by_side(self._settings.threads), "engine")
        self._decode_threads = ThreadPoolExecutor(_DECODE_THREADS, "decode")
        self._giant_thread = ThreadPoolExecutor(1, "giant")
        self._load_thread = ThreadPoolExecutor(1, "load")
        self._sessions = Sessions(registry, self._settings, self._load_thread, self._new_batcher)
        self._stamp: Stamp = None
        self._fault: Exception | None = None
        self._switching = asyncio.Lock()
        self._follower: asyncio.Task[None] | None = None
        self._admitted = 0
        self._admitted_bytes = 0
        self._metrics = get_metrics()
        self._loaded: WeakValueDictionary[str, Batcher] = WeakValueDictionary()
        """Batchers by tag, for as long as anything uses them."""

    # Life.

    async def start(self, early: "Future[Passed] | None" = None) -> None:
        """Load the active model, if there is one, and begin to follow the pointer.

        `early` is that model's loading, where it has begun already.
        """
        self._sessions.early = early
        await self._refresh()
        self._sessions.early = None
        self._follower = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._follower
        self._publish()
        for threads in (
            self._engine_threads,
            self._decode_threads,
            self._giant_thread,
            self._load_thread,
        ):
            threads.shutdown(wait=False, cancel_futures=True)

    # Predictions.

    @contextlib.contextmanager
    def admitted(self, count: int, size: int = 0) -> Iterator[None]:
        """Hold places for `count` images of `size` bytes together from before they are read until
        they are answered.

        Raises `Overloaded` where too many are under way, so that neither memory nor the decoders
        fill up with what could only be answered too late.
        """
        limit = self._settings.max_queue
        if count > limit:
            raise BadArgument(f"One request may carry {limit} images; send {count} in several.")
        if self._admitted + count > limit:
            raise Overloaded(f"{self._admitted} images wait already; try again in a moment.")
        # A request that is alone is taken however large: the limit on bodies bounds it.
        most_bytes = self._settings.max_queue_mb * 1024 * 1024
        if self._admitted_bytes and self._admitted_bytes + size > most_bytes:
            raise Overloaded("Too many large images wait already; try again in a moment.")
        self._admitted += count
        self._admitted_bytes += size
        try:
            yield
        finally:
            self._admitted -= count
            self._admitted_bytes -= size

    async def predict(
        self,
        files: Sequence[bytes],
        *,
        model: str | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
    ) -> dict[str, Any]:
        """A `PredictResponse` for encoded images, in their order.

        One image, and it is bad: its `BadImage` is raised, or `BadModel` where the model gives no
        number for it. Several, and some are bad: those get `error` and `code` in their places, the
        others their predictions. Raises `NoActiveModel`, `ModelNotFound`, `BadArgument` or
        `Overloaded` too.
        """
        if not files:
            raise BadArgument("Send at least one file in the form field `images`.")
        started = time.monotonic()
        deadline = started + self._settings.deadline_ms / 1000
        batcher = await self._batcher(model, deadline)
        card = batcher.engine.card
        card.check_options(top_k, threshold)
        answers = (self._answer(batcher, file, deadline, top_k, threshold) for file in files)
        if len(files) == 1:
            predictions = [await next(answers)]
        else:
            predictions = []
            for answer in await asyncio.gather(*answers, return_exceptions=True):
                if isinstance(answer, BadImage | BadModel):
                    predictions.append(answer.to_dict())
                elif isinstance(answer, BaseException):
                    raise answer
                else:
                    predictions.append(answer)
        self._count(batcher.engine, predictions, time.monotonic() - started)
        return {"model": card.tag, "predictions": predictions}

    async def _answer(
        self,
        batcher: Batcher,
        file: bytes,
        deadline: float,
        top_k: int | None,
        threshold: float | None,
    ) -> dict[str, Any]:
        preprocessing = batcher.engine.card.preprocessing
        started = time.monotonic()
        if _is_small(file):
            pixels = images.load(file, preprocessing)
        else:
            loop = asyncio.get_running_loop()
            try:
                pixels = await loop.run_in_executor(
                    self._decode_threads, _decode, file, preprocessing, deadline, _GIANT_PIXELS
                )
            except _Giant:
                pixels = await loop.run_in_executor(
                    self._giant_thread, _decode, file, preprocessing, deadline
                )
        batcher.engine.tallies.decode_seconds.add(time.monotonic() - started)
        row = await batcher.submit(pixels, deadline=deadline)
        return render(batcher.engine.card, row, top_k=top_k, threshold=threshold)

    def _count(self, engine: Watched, predictions: list[dict[str, Any]], seconds: float) -> None:
        tallies = engine.tallies
        tallies.request_seconds.add(seconds)
        for prediction in predictions:
            if "error" in prediction:
                self._metrics.refused(prediction["code"])
            elif "score" in prediction:
                if (place := engine.card.place(prediction["score"])) is not None:
                    tallies.score.add(place)
            else:
                tallies.confidence.add(prediction["probability"])
                if prediction.get("abstained"):
                    tallies.abstentions += 1

    async def ready(self) -> bool:
        """Whether `/predict` works: true with no model active, which is a normal first state.

        With one, an answer of the last `_READY_SECONDS` is proof enough; else a blank image goes
        through its queue. False where the pointer names a model that cannot be loaded, and no
        other answers in its place.
        """
        try:
            batcher = await self._batcher(None, time.monotonic() + _PROBE_SECONDS)
            answered = time.monotonic() - batcher.engine.answered_at
            return answered < _READY_SECONDS or await self._probe(batcher)
        except NoActiveModel:
            return self._fault is None
        except Exception as err:  # whatever it was, it is why predictions fail
            logger.error("Not ready: %r", err)
            return False

    async def _probe(self, batcher: Batcher) -> bool:
        size = batcher.engine.card.preprocessing
        blank = np.zeros((size.height, size.width, 3), np.uint8)
        batcher.engine.look_away()
        async with asyncio.timeout(_PROBE_SECONDS):
            row = await batcher.submit(blank, deadline=time.monotonic() + _PROBE_SECONDS)
        return bool(np.isfinite(row).all())

    # Models.

    async def set(self, tag: str) -> None:
        """Load, replay the goldens, warm up; only then make `tag` active.

        Raises `ModelNotFound`, `BadModel` or `GateFailed`, and leaves everything as it was.
        """
        async with self._switching:
            card = await asyncio.to_thread(self.registry.get, tag)
            batcher = await self._sessions.load(card.tag)
            self._stamp = await asyncio.to_thread(self.registry.point, card.tag)
            self._sessions.active = batcher

    async def rollback(self) -> None:
        """The same for the model that was active before. Raises `Conflict` where there is none."""
        async with self._switching:
            tag = await asyncio.to_thread(self.registry.before)
            batcher = await self._sessions.load(tag)
            self._stamp = await asyncio.to_thread(self.registry.step_back, tag)
            self._sessions.active = batcher

    async def unset(self) -> str | None:
        """Leave no model active; returns the tag of the one that was."""
        async with self._switching:
            was = await asyncio.to_thread(self.registry.unset)
            self._sessions.active = None
            return was

    @property
    def active(self) -> str | None:
        """Tag of the model that answers plain predictions now."""
        active = self._sessions.active
        return active.engine.card.tag if active else None

    def loaded(self) -> dict[str, int]:
        """Bytes by tag of the models in memory, the least recently used first."""
        return self._sessions.loaded()

    async def _batcher(self, model: str | None, deadline: float) -> Batcher:
        if model is not None:
            return await self._named(model, deadline)
        if self._stamp != self.registry.stamp() and not self._may_go_on():
            await self._refresh()
        active = self._sessions.active
        if active is None:
            why = f" ({self._fault})" if self._fault else ""
            raise NoActiveModel(
                f"No model is active{why}: train one with /fit, then make it active with /set; "
                "/list shows those there are."
            )
        return active

    def _may_go_on(self) -> bool:
        """Whether the model that was active may answer although the pointer has changed.

        It may while the follower loads the next one, unless no model is active any more or this one
        has been removed.
        """
        active = self._sessions.active
        if active is None or not self.registry.has(active.engine.card.tag):
            return False
        try:
            return self.registry.active() is not None
        except ImgclsError:
            return True

    async def _named(self, model: str, deadline: float) -> Batcher:
        """The model asked for by its tag, loaded if need be; `Overloaded` past the deadline."""
        if (ready := self._sessions.ready(model)) is not None:
            return ready
        tag = (await asyncio.to_thread(self.registry.get, model)).tag
        if (ready := self._sessions.ready(tag)) is not None:
            return ready
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._sessions.load(tag)
        except TimeoutError:
            raise Overloaded(f"{tag} is still being loaded; try again later.") from None

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._settings.poll_ms / 1000)
            try:
                if self._stamp != self.registry.stamp():
                    await self._refresh()
                await self._sessions.sweep()
            except Exception:  # whatever it was, a later look may succeed
                logger.exception("The active model could not be followed")
            self._publish()

    def _publish(self) -> None:
        loaded = dict(self._loaded)
        scores = {tag: batcher.engine.drift() for tag, batcher in loaded.items()}
        try:
            self._metrics.publish(
                active=self.active,
                waiting={tag: batcher.waiting for tag, batcher in loaded.items()},
                drift={tag: score for tag, score in scores.items() if score is not None},
            )
        except Exception:  # whatever it was, predictions go on without being counted
            logger.exception("The metrics could not be published")

    async def _refresh(self) -> None:
        """Load whatever the pointer names now; a model that fails its gate changes nothing."""
        async with self._switching:
            stamp = self.registry.stamp()
            if stamp == self._stamp:
                return
            try:
                tag = self.registry.active()
                self._sessions.active = await self._sessions.load(tag) if tag else None
            except (ImgclsError, OSError) as err:
                logger.error("The active model was not loaded: %s", err)
                self._fault = err
                if not self._may_go_on():
                    self._sessions.active = None
            else:
                self._fault = None
            self._stamp = stamp

    def _new_batcher(self, engine: Engine) -> Batcher:
        settings = self._settings
        tag = engine.card.tag
        batcher = self._loaded[tag] = Batcher(
            Watched(engine, self._metrics.model(tag)),
            self._engine_threads,
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
        )
        return batcher


class _Giant(Exception):
    """The image has more pixels than a decode thread takes."""


def _decode(
    file: bytes, preprocessing: Preprocessing, deadline: float, most_pixels: int | None = None
) -> images.Pixels:
    if time.monotonic() > deadline:
        raise Overloaded("The request waited longer than its deadline; try again later.")
    if most_pixels is not None and _pixels(file) > most_pixels:
        raise _Giant
    return images.load(file, preprocessing)


def _is_small(file: bytes) -> bool:
    if len(file) > _INLINE_BYTES:
        return False
    return _pixels(file) <= _INLINE_PIXELS


def _pixels(file: bytes) -> int:
    info = images.probe(file)
    return info.width * info.height
