"""An engine under observation: batches are counted, and some embeddings taken in for drift."""

import threading
import time

from imgcls.drift import Drift, Reference
from imgcls.engine import Engine, Floats
from imgcls.images import Pixels
from imgcls.metrics import ModelTallies

LOOK_SECONDS = 0.05
"""Least time between two batches whose embeddings are taken in for the drift score."""


class Watched:
    """Runs an engine's batches and counts them. Threads may share it."""

    def __init__(self, engine: Engine, tallies: ModelTallies) -> None:
        self.engine = engine
        self.card = engine.card
        self.on_cpu, self.parallel, self.seconds = engine.on_cpu, engine.parallel, engine.seconds
        self.tallies = tallies
        reference = Reference.load(engine.folder)
        self._drift = Drift(reference) if reference else None
        self._next_look = 0.0
        self._counting = threading.Lock()
        self.answered_at = 0.0
        """`time.monotonic()` at the end of the last batch that ran without an error."""

    def answers(self, pixels: Pixels) -> Floats:
        """As `Engine.answers`."""
        started = time.monotonic()
        if self._drift is not None and started >= self._next_look:
            self._next_look = started + LOOK_SECONDS
            rows, embedding = self.engine.run(pixels)
        else:
            rows, embedding = self.engine.answers(pixels), None
        with self._counting:
            if self._drift is not None and embedding is not None:
                self._drift.add(embedding)
            self.answered_at = time.monotonic()
            self.tallies.batch_images.add(len(pixels))
            self.tallies.inference_seconds.add(self.answered_at - started)
        return rows

    def look_away(self) -> None:
        """Leave what runs next out of the drift score: it is a probe, and nobody's picture."""
        self._next_look = time.monotonic() + LOOK_SECONDS

    def drift(self) -> float | None:
        """The drift score; None without a reference, and until enough images have been seen."""
        return self._drift.score() if self._drift else None
