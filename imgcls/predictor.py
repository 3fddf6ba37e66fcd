"""Images in, predictions out: decode, batch, answer, and follow the active model.

One predictor a worker. It looks at the active pointer with every request and a few times a second
besides; a new model is loaded and checked beside the old one, which answers until the moment of the
switch. Requests that are under way stay with the model they began with.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from imgcls import images
from imgcls.batcher import Batcher
from imgcls.card import ModelCard, Preprocessing
from imgcls.engine import Engine, Floats, gate, side_by_side, verdicts
from imgcls.errors import BadArgument, BadImage, ImgclsError, NoActiveModel, Overloaded
from imgcls.metrics import ModelTallies, get_metrics
from imgcls.registry import Registry, Stamp
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
        self._active: Batcher | None = None
        self._stamp: Stamp = None
        self._fault: Exception | None = None
        self._early: Future[Engine] | None = None
        self._switching = asyncio.Lock()
        self._others: OrderedDict[str, asyncio.Task[Batcher]] = OrderedDict()
        self._follower: asyncio.Task[None] | None = None
        self._admitted = 0
        self._admitted_bytes = 0
        self._metrics = get_metrics()
        self._loaded: WeakValueDictionary[str, Batcher] = WeakValueDictionary()
        """Batchers by tag, for as long as anything uses them."""

    # Life.

    async def start(self, early: "Future[Engine] | None" = None) -> None:
        """Load the active model, if there is one, and begin to follow the pointer.

        `early` is that model's loading, where it has begun already.
        """
        self._early = early
        await self._refresh()
        self._early = None
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

        One image, and it is bad: its `BadImage` is raised. Several, and some are bad: those get
        `error` and `code` in their places, the others their predictions. Raises `NoActiveModel`,
        `ModelNotFound`, `BadArgument` or `Overloaded` too.
        """
        if not files:
            raise BadArgument("Send at least one file in the form field `images`.")
        started = time.monotonic()
        batcher = await self._batcher(model)
        card = batcher.engine.card
        card.check_options(top_k, threshold)
        deadline = time.monotonic() + self._settings.deadline_ms / 1000
        if len(files) == 1:
            row = await self._answer(batcher, files[0], deadline)
            predictions = [render(card, row, top_k=top_k, threshold=threshold)]
        else:
            rows = await asyncio.gather(
                *(self._answer(batcher, file, deadline) for file in files), return_exceptions=True
            )
            predictions = []
            for answer in rows:
                if isinstance(answer, BadImage):
                    predictions.append(answer.to_dict())
                elif isinstance(answer, BaseException):
                    raise answer
                else:
                    predictions.append(render(card, answer, top_k=top_k, threshold=threshold))
        self._count(batcher.engine.tallies, predictions, time.monotonic() - started)
        return {"model": card.tag, "predictions": predictions}

    async def _answer(self, batcher: Batcher, file: bytes, deadline: float) -> Floats:
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
        return await batcher.submit(pixels, deadline=deadline)

    def _count(
        self, tallies: ModelTallies, predictions: list[dict[str, Any]], seconds: float
    ) -> None:
        tallies.request_seconds.add(seconds)
        for prediction in predictions:
            if "error" in prediction:
                self._metrics.refused(prediction["code"])
            else:
                tallies.confidence.add(prediction["probability"])

    async def ready(self) -> bool:
        """Whether `/predict` works: true with no model active, which is a normal first state.

        With one, an answer of the last `_READY_SECONDS` is proof enough; else a blank image goes
        through its queue. False where the pointer names a model that cannot be loaded, and no
        other answers in its place.
        """
        try:
            batcher = await self._batcher(None)
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
            engine = await self._gate(self.registry.get(tag).tag)
            await self._in_thread(self.registry.point, engine.card.tag)
            self._switch(engine)

    async def rollback(self) -> None:
        """The same for the model that was active before. Raises `Conflict` where there is none."""
        async with self._switching:
            tag = await self._in_thread(self.registry.before)
            engine = await self._gate(tag)
            await self._in_thread(self.registry.step_back, tag)
            self._switch(engine)

    async def unset(self) -> str | None:
        """Leave no model active; returns the tag of the one that was."""
        async with self._switching:
            was: str | None = await self._in_thread(self.registry.unset)
            self._switch(None)
            return was

    async def _batcher(self, model: str | None) -> Batcher:
        if model is not None:
            return await self._other(model)
        if self._stamp != self.registry.stamp() and (self._active is None or not self._pointed()):
            await self._refresh()
        if self._active is None:
            why = f" ({self._fault})" if self._fault else ""
            raise NoActiveModel(
                f"No model is active{why}: train one with /fit, then make it active with /set; "
                "/list shows those there are."
            )
        return self._active

    def _pointed(self) -> bool:
        """Whether a model is active at all; a changed pointer to another is left to the follower,
        so that the old model answers while the new one loads."""
        try:
            return self.registry.active() is not None
        except ImgclsError:
            return True

    async def _other(self, model: str) -> Batcher:
        """A batcher for a model asked for by its tag; the least recently used ones are let go."""
        ready = self._others.get(model)
        if ready is not None and ready.done() and self.registry.has(model):
            self._others.move_to_end(model)
            return ready.result()
        tag = (await self._in_thread(self.registry.get, model)).tag
        if self._active is not None and self._active.engine.card.tag == tag:
            return self._active
        task = self._others.get(tag)
        if task is None:
            task = self._others[tag] = asyncio.create_task(self._load_other(tag))
        self._others.move_to_end(tag)
        while len(self._others) > self._settings.max_loaded_models:
            self._others.popitem(last=False)
        return await asyncio.shield(task)

    async def _load_other(self, tag: str) -> Batcher:
        try:
            return self._new_batcher(await self._gate(tag))
        except BaseException:
            self._others.pop(tag, None)
            raise

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._settings.poll_ms / 1000)
            try:
                if self._stamp != self.registry.stamp():
                    await self._refresh()
            except Exception:  # whatever it was, a later look may succeed
                logger.exception("The active model could not be followed")
            self._publish()

    def _publish(self) -> None:
        loaded = dict(self._loaded)
        scores = {tag: batcher.engine.drift() for tag, batcher in loaded.items()}
        try:
            self._metrics.publish(
                active=self._active.engine.card.tag if self._active else None,
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
                if tag is None:
                    self._active = None
                elif self._active is None or self._active.engine.card.tag != tag:
                    self._active = self._new_batcher(await self._gate(tag))
            except (ImgclsError, OSError) as err:
                logger.error("The active model was not loaded: %s", err)
                self._fault = err
            else:
                self._fault = None
            self._stamp = stamp

    async def _gate(self, tag: str) -> Engine:
        if self._early is not None:
            with contextlib.suppress(Exception):  # it fails again below, and is reported there
                engine = await asyncio.wrap_future(self._early)
                if engine.card.tag == tag:
                    return engine
        folder = self.registry.folder(tag)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._load_thread, lambda: gate(folder, max_batch=self._settings.max_batch)
        )

    def _switch(self, engine: Engine | None) -> None:
        # The stamp is left to the follower: another worker may have moved the pointer since.
        self._active = self._new_batcher(engine) if engine else None

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

    async def _in_thread(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._load_thread, function, *args)


def render(
    card: ModelCard, row: Floats, *, top_k: int | None = None, threshold: float | None = None
) -> dict[str, Any]:
    """One `Prediction` from the probabilities `float32 [C]` of one image."""
    verdict = int(verdicts(row, card.threshold if threshold is None else threshold))
    shown = np.argsort(-row, kind="stable")[:top_k]
    return {
        "label": card.labels[verdict],
        "probability": round(float(row[verdict]), 6),
        "probabilities": {card.labels[i]: round(float(row[i]), 6) for i in shown},
    }


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
