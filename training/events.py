"""What a run says of itself while it works: stages, progress, epochs, metrics."""

import time
from collections.abc import Callable
from typing import Any, Protocol, Unpack

from imgcls.jobs import Told
from training.loader import Progress

_EVENT_SECONDS = 0.5
"""Least time between two progress events of one stage."""


class OnEvent(Protocol):
    """Called as `imgcls.jobs.JobWriter.emit` is."""

    def __call__(self, stage: str, **told: Unpack[Told]) -> None: ...


def ignore(*args: Any, **kwargs: Any) -> None:
    """What events go to when nobody listens."""


def throttled(emit: OnEvent, stage: str, *, at: float = 0.0, share: float = 1.0) -> Progress:
    """Progress of one part of a stage, passed on at most every `_EVENT_SECONDS`."""
    last = time.monotonic()

    def report(progress: float) -> None:
        nonlocal last
        if progress >= 1.0 or time.monotonic() - last >= _EVENT_SECONDS:
            last = time.monotonic()
            emit(stage, progress=min(1.0, at + share * progress))

    return report


def epoch_reporter(emit: OnEvent, epochs: int) -> Callable[[dict[str, float]], None]:
    """What training loops call after every epoch, those of a checkpoint included, as events with
    the figures of that epoch."""
    spent = 0.0

    def report(row: dict[str, float]) -> None:
        nonlocal spent
        spent += row["seconds"]
        epoch = int(row["epoch"])
        shown = {k: v for k, v in row.items() if k.startswith(("train_", "val_"))}
        emit(
            "training",
            progress=epoch / epochs,
            epoch=epoch,
            epochs=epochs,
            metrics=shown,
            spent=spent,
        )

    return report
