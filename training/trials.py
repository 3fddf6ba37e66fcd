"""Trials: a recipe fitted in a process of its own, which can be stopped at any moment.

Native code (support vectors, trees) cannot be interrupted from inside, and a trial that runs out
of memory must not end the search: so each has a process, forked from a server that has loaded
torch once and run nothing. What it made goes into a folder, from which `load` brings it back.
"""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

import numpy as np

from imgcls.card import GRAPH_FILE, Preprocessing
from imgcls.data import Dataset
from imgcls.errors import ImgclsError
from imgcls.files import scratch
from imgcls.jobs import Told
from imgcls.recipes import Recipe
from imgcls.settings import get_settings

if TYPE_CHECKING:
    from training.fitted import Fitted

_SPLITS = ("val", "test")
_FIRST_LOOK = (3.0, 0.05)
"""Seconds of a stage, or share of the time there is, after which its speed says something."""
_TOO_SLOW = 1.1
"""A trial that will take this many times what it may is stopped as soon as that is seen."""
_POLL = 0.2

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["training.fit", "training.trials"])

State = Literal["complete", "pruned", "failed", "out_of_time"]
Listener = Callable[[str, Told], bool]
"""Gets every event of a trial, as `OnEvent` does; False stops the trial."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended."""

    state: State
    seconds: float
    reason: str | None = None
    share: float | None = None
    """Of a trial out of time: which share of its stage there was time left for, at its speed."""


def warm_up() -> None:
    """Let the server of processes begin to load torch, while this process does the same."""
    forkserver.ensure_running()


def ready() -> None:
    """Return when trials can begin at once."""
    process = _context.Process(target=_nothing, daemon=True)
    process.start()
    process.join()


def _nothing() -> None:
    """What a process does that only has to begin."""


def run(
    dataset: Dataset, recipe: Recipe, folder: Path, *, seconds: float, listen: Listener
) -> Outcome:
    """Fit `recipe` within `seconds` and keep what it made in `folder`.

    A trial whose own progress says that it will not be over by then is stopped at once.
    """
    started = time.monotonic()
    ours, theirs = _context.Pipe(duplex=False)
    process = _context.Process(
        target=_work, args=(theirs, dataset, recipe, folder, dict(os.environ)), daemon=True
    )
    process.start()
    theirs.close()
    pace = Pace(started + seconds)
    outcome: tuple[State, str | None, float | None] = ("failed", None, None)
    try:
        while True:
            if time.monotonic() > started + seconds:
                outcome = ("out_of_time", f"It took longer than {seconds:.0f} s.", None)
                break
            if not ours.poll(_POLL):
                continue
            kind, *rest = ours.recv()
            if kind != "event":
                outcome = (kind, rest[0], None)
                break
            stage, told = rest
            if not listen(stage, told):
                outcome = ("pruned", "Others were better at this point.", None)
                break
            if (share := pace.falls_short(stage, told)) is not None:
                outcome = ("out_of_time", f"It would have taken over {seconds:.0f} s.", share)
                break
    except EOFError:
        process.join()
        how = "out of memory, perhaps" if process.exitcode == -signal.SIGKILL else "see the log"
        outcome = ("failed", f"Its process ended with {process.exitcode}: {how}.", None)
    finally:
        process.kill()
        process.join()
        ours.close()
    state, reason, share = outcome
    if state != "complete":
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(state, round(time.monotonic() - started, 3), reason, share)


class Pace:
    """Whether a trial will be over in time, by the progress of its longest stages."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        least, share = _FIRST_LOOK
        self._look = max(least, share * (deadline - time.monotonic()))
        self._stage = ""
        self._began = (0.0, 0.0)

    def falls_short(self, stage: str, told: Told) -> float | None:
        """None while it looks well; else the share of the stage that is possible from now on."""
        progress, now = told.get("progress"), time.monotonic()
        if stage not in ("training", "features") or progress is None:
            return None
        if stage != self._stage and progress > 0:  # what comes before says nothing of the speed
            self._stage, self._began = stage, (now, progress)
        if stage != self._stage:
            return None
        began, at = self._began
        if now - began < self._look or progress <= at:
            return None
        whole = (now - began) / (progress - at)
        if now + (1 - progress) * whole <= began + _TOO_SLOW * (self._deadline - began):
            return None
        return float(min(1.0, max(0.0, self._deadline - now) / whole))


def _work(
    connection: Connection, dataset: Dataset, recipe: Recipe, folder: Path, env: dict[str, str]
) -> None:
    """The process of a trial. It ends at its next event where the search is gone."""
    from training.fit import fit
    from training.seeding import reproducible

    os.environ.update(env)  # the server that it was forked from may have another home
    get_settings.cache_clear()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def emit(stage: str, **told: Unpack[Told]) -> None:
        connection.send(("event", stage, told))

    with contextlib.suppress(BrokenPipeError):
        try:
            with dataset, reproducible(recipe.seed):
                fitted = fit(dataset, recipe, emit)
                save(fitted, folder)
            connection.send(("complete", None))
        except BrokenPipeError:
            raise
        except ImgclsError as err:
            connection.send(("failed", err.message))
        except Exception as err:  # whatever it was, the others go on
            traceback.print_exc()
            connection.send(("failed", f"{type(err).__name__}: {' '.join(str(err).split())[:300]}"))


def save(fitted: "Fitted", folder: Path) -> None:
    """Keep all that registering needs; the folder appears whole or not at all."""
    told = {f.name: getattr(fitted, f.name) for f in dataclasses.fields(fitted)}
    told |= {"preprocessing": fitted.preprocessing.model_dump()}
    del told["write"], told["answers"]
    with scratch(folder.parent, ".trial-") as work:
        made = work / folder.name
        made.mkdir()
        for split in _SPLITS:
            np.save(made / f"{split}.npy", fitted.answers[split])
        fitted.write(made / GRAPH_FILE)
        (made / "fitted.json").write_text(json.dumps(told))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(made, folder)


def load(folder: Path) -> "Fitted":
    """What `save` kept. Raises `OSError` where the graph has been forgotten."""
    from training.fitted import Fitted

    if not (folder / GRAPH_FILE).is_file():
        raise FileNotFoundError(f"{folder} has no graph any more")
    told = json.loads((folder / "fitted.json").read_text())
    told["preprocessing"] = Preprocessing.model_validate(told["preprocessing"])
    return Fitted(
        write=partial(_copy, folder / GRAPH_FILE),
        answers={split: np.load(folder / f"{split}.npy") for split in _SPLITS},
        **told,
    )


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def forget_graph(folder: Path) -> None:
    """Keep the answers of a trial that will not be registered, and nothing else of size."""
    (folder / GRAPH_FILE).unlink(missing_ok=True)
