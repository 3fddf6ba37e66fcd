"""The prediction log: some answers, by chance, through `bentoml.monitor`.

BentoML decides where they go: by default into files under `monitoring/imgcls_predictions/` in the
working directory, one file a worker, rotated daily. The images themselves are never kept, only
their hashes.
"""

import contextvars
import hashlib
import logging
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import bentoml

from imgcls.logs import request_id

logger = logging.getLogger("imgcls.monitor")

NAME = "imgcls_predictions"
_PREDICTED = {
    "label": "categorical",
    "probability": "numerical",
    "abstained": "categorical",
    "score": "numerical",
}
"""Fields of a prediction and their types. BentoML's file has one schema, so that each is in every
record, and null where it does not apply."""
_MAX_WAITING = 1000
"""Answers that may wait to be written; more are left out rather than kept in memory."""


class PredictionLog:
    """Writes each answer with the chance `rate`, from 0 to 1, in a thread of its own."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._thread = ThreadPoolExecutor(1, "monitor")
        self._places = threading.Semaphore(_MAX_WAITING)

    def offer(self, files: Sequence[bytes], answer: dict[str, Any]) -> None:
        """A `PredictResponse` and the encoded images that it is for; errors are not logged."""
        if not self._rate:
            return
        for file, prediction in zip(files, answer["predictions"], strict=True):
            if "error" in prediction or random.random() >= self._rate:
                continue
            if self._places.acquire(blocking=False):
                # In a context of its own: `bentoml.monitor` leaves variables behind if it fails.
                context = contextvars.copy_context()
                self._thread.submit(context.run, self._write, file, answer["model"], prediction)

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._thread.shutdown()

    def _write(self, file: bytes, model: str, prediction: dict[str, Any]) -> None:
        sha256 = hashlib.sha256(file).hexdigest()
        try:
            with bentoml.monitor(NAME) as record:
                # BentoML keeps the plain name `request_id` for the span of its tracing.
                record.log(request_id(), "x_request_id", "feature", "categorical")
                record.log(sha256, "image_sha256", "feature", "categorical")
                record.log(model, "model", "feature", "categorical")
                for name, kind in _PREDICTED.items():
                    record.log(prediction.get(name), name, "prediction", kind)
        except Exception:  # whatever fails, predictions go on
            logger.exception("A prediction was not logged")
        finally:
            self._places.release()
