"""The shadow model: a second opinion on some of the live traffic, which delays no answer.

One thread a worker follows the shadow's pointer, loads the model behind the gate, and scores
images that were answered already. What it has no time for is dropped and counted: its queue is
bounded, and it works at most a quarter of the time. It has no lower priority than the others: a
thread that the system makes wait would keep Python's lock from the event loop meanwhile.
"""

import contextlib
import logging
import queue
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from imgcls import images
from imgcls.card import ModelCard
from imgcls.engine import Engine, gate
from imgcls.errors import BadImage
from imgcls.files import Stamp
from imgcls.prediction import render
from imgcls.registry import Registry
from imgcls.schemas import Disagreement, Opinion, ShadowCounts
from imgcls.settings import Settings, get_settings
from imgcls.shadow_files import ShadowPointer

logger = logging.getLogger("imgcls.shadow")

_MAX_WAITING = 32
"""Images that may wait for the shadow in one worker."""
_MAX_BYTES = 4 * 1024 * 1024
"""Larger files are dropped: what waits is held in memory."""
_REST = 3.0
"""Rest after an image, as a multiple of the time that it took."""
_FLUSH = 1.0
"""Seconds between two additions to the counts on disk."""
_FAR = 0.1
"""Scores of models without an interval differ by more than this share of the range, or of the score
where there is no range either."""


class Shadow:
    """A worker's shadow. `offer` belongs to the event loop, all else to the thread."""

    def __init__(self, registry: Registry, settings: Settings | None = None) -> None:
        self._registry = registry
        self._settings = settings or get_settings()
        self._files = registry.shadow
        self._queue: queue.Queue[tuple[bytes, Opinion]] = queue.Queue(_MAX_WAITING)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._stamp: Stamp = None
        self._pointer = ShadowPointer()
        self._engine: Engine | None = None
        self._rate = 0.0
        """0 while no shadow is loaded."""
        self._dropped = 0
        self._dropped_before = 0
        self._counts = ShadowCounts()
        self._found: deque[tuple[Disagreement, bytes]] = deque(maxlen=self._settings.shadow_keep)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write the counts, and end the thread."""
        self._stopped.set()
        self._thread.join(5)

    def offer(self, files: Sequence[bytes], answer: dict[str, Any]) -> None:
        """Encoded images and the `PredictResponse` that they got from the active model.

        A share of them is put into the queue, if there is room; this never waits.
        """
        if not self._rate or answer["model"] == self._pointer.tag:
            return
        for file, prediction in zip(files, answer["predictions"], strict=True):
            if "error" in prediction or random.random() >= self._rate:
                continue
            opinion = Opinion.model_validate({"model": answer["model"], **prediction})
            try:
                if len(file) > _MAX_BYTES:
                    raise queue.Full
                self._queue.put_nowait((file, opinion))
            except queue.Full:
                self._dropped += 1

    def _run(self) -> None:
        flushed = time.monotonic()
        while not self._stopped.is_set():
            try:
                self._follow()
                began = time.monotonic()
                with contextlib.suppress(queue.Empty):
                    file, opinion = self._queue.get(timeout=self._settings.poll_ms / 1000)
                    began = time.monotonic()
                    self._score(file, opinion)
                    self._stopped.wait(_REST * (time.monotonic() - began))
                if time.monotonic() - flushed > _FLUSH:
                    self._flush()
                    flushed = time.monotonic()
            except Exception:  # whatever it was, answers do not depend on it
                logger.exception("The shadow failed")
                self._stopped.wait(_FLUSH)
        with contextlib.suppress(OSError):
            self._flush()

    def _follow(self) -> None:
        """Load what the pointer names, if it has changed."""
        stamp = self._files.stamp()
        if stamp == self._stamp:
            return
        self._flush()
        self._rate, self._engine, self._stamp = 0.0, None, stamp
        self._pointer = self._files.pointer()
        while not self._queue.empty():
            self._queue.get_nowait()
        if self._pointer.tag is not None:
            self._engine = gate(self._registry.folder(self._pointer.tag), threads=1)
            self._rate = self._pointer.rate

    def _score(self, file: bytes, active: Opinion) -> None:
        assert self._engine is not None
        card = self._engine.card
        try:
            pixels = images.load(file, card.preprocessing)
            answer = render(card, self._engine.answers(pixels[np.newaxis])[0])
        except BadImage:  # the active model's decoder read it at another scale
            self._counts.failed += 1
            return
        except Exception:  # ONNX Runtime's own exceptions share no base class
            logger.exception("The shadow %s failed on an image", card.tag)
            self._counts.failed += 1
            return
        shadow = Opinion.model_validate({"model": card.tag, **answer})
        if (shadow.score is None) != (active.score is None):
            self._counts.failed += 1
            return
        self._counts.scored += 1
        if shadow.score is not None and active.score is not None:
            self._counts.difference += abs(shadow.score - active.score)
        if _agree(active, shadow, card):
            self._counts.agreed += 1
            return
        self._counts.disagreed += 1
        now = datetime.now(UTC)
        kind = images.probe(file).format.lower()
        disagreement = Disagreement(
            time=now,
            image=f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}.{kind}",
            active=active,
            shadow=shadow,
        )
        self._found.append((disagreement, file))

    def _flush(self) -> None:
        """Add what was counted since the last time to the counts of all workers."""
        self._counts.dropped = self._dropped - self._dropped_before
        if self._pointer.run and self._counts != ShadowCounts():
            self._files.add(
                self._pointer.run, self._counts, self._found, keep=self._settings.shadow_keep
            )
        self._dropped_before += self._counts.dropped
        self._counts = ShadowCounts()
        self._found.clear()


def _agree(active: Opinion, shadow: Opinion, card: ModelCard) -> bool:
    """`card` is the shadow's."""
    if active.score is None or shadow.score is None:
        return active.label == shadow.label
    if active.interval is not None:
        low, high = active.interval
        return low <= shadow.score <= high
    low, high = card.output_range or (0.0, abs(active.score))
    return abs(shadow.score - active.score) <= _FAR * (high - low)
