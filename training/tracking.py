"""Tracking: the figures of a run, as it works, to TensorBoard and MLflow.

    $IMGCLS_HOME/tracking/tensorboard/   tensorboard --logdir
                          mlflow.db      mlflow ui --backend-store-uri sqlite:///...
                          mlruns/        MLflow's artifacts

A server of one's own takes MLflow's place where `MLFLOW_TRACKING_URI` names it. A tracker that
fails at the start refuses the run; one that fails later is let go with a warning.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Unpack

from imgcls.errors import BadArgument
from imgcls.jobs import Told, Tracker
from imgcls.recipes import Recipe
from imgcls.settings import get_settings
from training.events import OnEvent

_log = logging.getLogger("imgcls.tracking")
_LONGEST = 500
"""Characters of a setting that MLflow takes."""


class Sink(Protocol):
    """One run in one tracker."""

    def log(self, step: int, figures: dict[str, float]) -> None: ...

    def end(self, figures: dict[str, float], labels: dict[str, str], failed: bool) -> None: ...


class Run:
    """A run in all trackers that were asked for."""

    def __init__(self, sinks: dict[str, Sink], on_event: OnEvent) -> None:
        self._sinks = sinks
        self._pass_on = on_event
        self._epoch = 0

    def on_event(self, stage: str, **told: Unpack[Told]) -> None:
        """Pass an event on, and log it where it is the first of an epoch with figures."""
        self._pass_on(stage, **told)
        epoch, figures = told.get("epoch"), told.get("metrics")
        if stage == "training" and epoch and figures and epoch > self._epoch:
            self._epoch = epoch
            self._each("log", epoch, figures)

    def end(self, figures: dict[str, float], *, failed: bool = False, **labels: str) -> None:
        """The run is over; `figures` are its result. Only the first call counts."""
        self._each("end", figures, labels, failed)
        self._sinks = {}

    def _each(self, call: str, *arguments: Any) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                getattr(sink, call)(*arguments)
            except Exception as err:  # a tracker's trouble is none of the training's
                _log.warning("%s is left out from here on: %s", name, err)
                del self._sinks[name]


@contextlib.contextmanager
def tracked(
    trackers: Sequence[Tracker], name: str, recipe: Recipe, on_event: OnEvent
) -> Iterator[Run]:
    """A run called `name` in each of `trackers`; without any nothing is loaded.

    Raises `BadArgument` where a tracker is not installed or cannot be reached.
    """
    settings = flat(recipe.model_dump(mode="json"))
    sinks: dict[str, Sink] = {
        tracker: _open(tracker, name, settings) for tracker in dict.fromkeys(trackers)
    }
    run = Run(sinks, on_event)
    try:
        yield run
    except BaseException:
        run.end({}, failed=True)
        raise
    finally:
        run.end({})


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings by dotted keys, as text; what is null is left out."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            found[prefix + key] = text[:_LONGEST]
    return found


def _open(tracker: Tracker, name: str, settings: dict[str, str]) -> Sink:
    try:
        folder = get_settings().home / "tracking"
        folder.mkdir(parents=True, exist_ok=True)
        if tracker == "tensorboard":
            return _TensorBoard(folder, name, settings)
        return _MlFlow(folder, name, settings)
    except ImportError as err:
        raise BadArgument(f"{tracker} is not installed: pip install 'imgcls[track]'.") from err
    except Exception as err:  # both raise errors of many libraries
        where = (
            f" at {os.environ['MLFLOW_TRACKING_URI']}"
            if tracker == "mlflow" and (os.environ.get("MLFLOW_TRACKING_URI"))
            else ""
        )
        told = " ".join(str(err).split())[:200]
        raise BadArgument(
            f"{tracker}{where} does not take the run ({told}); mend that, or train without "
            f"--track {tracker}."
        ) from err


class _TensorBoard:
    def __init__(self, folder: Path, name: str, settings: dict[str, str]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard" / name))
        rows = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
        self._writer.add_text("recipe", f"| setting | value |\n| --- | --- |\n{rows}")

    def log(self, step: int, figures: dict[str, float]) -> None:
        for key, value in figures.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def end(self, figures: dict[str, float], labels: dict[str, str], failed: bool) -> None:
        for key, value in figures.items():
            self._writer.add_scalar(f"result/{key}", value)
        for key, text in labels.items():
            self._writer.add_text(key, text)
        self._writer.close()


class _MlFlow:
    def __init__(self, folder: Path, name: str, settings: dict[str, str]) -> None:
        # Read when it is imported. Nothing is sent but to the server that was asked for, and that
        # one is not waited for: by itself MLflow tries for minutes.
        for key, value in (
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
        ):
            os.environ.setdefault(key, value)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        local = None if os.environ.get("MLFLOW_TRACKING_URI") else f"sqlite:///{folder}/mlflow.db"
        self._client = MlflowClient(tracking_uri=local)
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "imgcls")
        found = self._client.get_experiment_by_name(title)
        experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(
                title, artifact_location=(folder / "mlruns").as_uri() if local else None
            )
        )
        self._run = self._client.create_run(experiment, run_name=name).info.run_id
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in settings.items()]
        self._client.log_batch(self._run, params=params)

    def log(self, step: int, figures: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        metrics = [Metric(key, value, now, step) for key, value in figures.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def end(self, figures: dict[str, float], labels: dict[str, str], failed: bool) -> None:
        self.log(0, {f"result_{key}": value for key, value in figures.items()})
        for key, text in labels.items():
            self._client.set_tag(self._run, key, text)
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
