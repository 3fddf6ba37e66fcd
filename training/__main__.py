"""`python -m training`: one run, either of a job folder or in the foreground.

Nothing heavy is imported before a job's turn has come, so a job that waits costs little memory.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO, Unpack

from imgcls.card import ModelCard
from imgcls.errors import ImgclsError
from imgcls.jobs import JobWriter, Told
from imgcls.recipes import (
    DEFAULT_RECIPE,
    PRESETS,
    Recipe,
    load_recipe,
    parse_override,
    read_recipe_file,
)
from imgcls.settings import get_settings

if TYPE_CHECKING:
    from training.events import OnEvent

EXIT_TERMINATED = 128 + signal.SIGTERM
EXIT_TIME_LIMIT = 124
"""As `timeout(1)` exits."""

_EXAMPLES = """\
examples:
  python -m training photos.zip --name pets
  python -m training photos/ --name pets --set epochs=60 --set augment.rotation=15
  python -m training photos.zip --name pets --recipe linear-probe --set features.weights=r18.pth
  python -m training photos.zip --name pets --config recipe.yaml --set optimizer.lr=0.01
  python -m training --job ~/bentoml/imgcls/jobs/20261121-083000-000000-a1b2

exit codes: 0 trained and registered, 1 the training failed, 2 the command is wrong
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    if (args.data is None) == (args.job is None):
        parser.error("give either DATA or --job DIR")
    if args.recipe is not None and args.config is not None:
        parser.error("give either --recipe or --config")
    signal.signal(signal.SIGTERM, _terminated)
    # Read when torch is loaded: waiting threads sleep, and leave the cores to whoever serves.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if args.job is not None:
        return run_job(args.job)
    return run_foreground(args)


def run_job(folder: Path) -> int:
    """Run the request in `folder`; every way it can end is written there."""
    writer = JobWriter(folder)
    try:
        go_behind_predictions()
        writer.wait_turn()
        request = writer.request
        unstoppable = stoppable(writer, request.time_limit)

        def on_event(stage: str, **told: Any) -> None:
            if stage == "registering":
                unstoppable()
            writer.emit(stage, **told)

        writer.emit("loading", progress=0.0)
        writer.succeed(_done(writer, on_event).tag)
        return 0
    except Exception as err:  # whatever it was, the job must say so
        traceback.print_exc()
        writer.fail(*_fault(err))
        return 1


def _done(writer: JobWriter, on_event: "OnEvent") -> ModelCard:
    """The model that a request asks for, its run tracked."""
    from imgcls.data import open_dataset

    request = writer.request
    common: dict[str, Any] = {"name": request.name, "baseline": request.baseline}
    if request.search is not None:
        from training.trials import warm_up

        warm_up()
        from training.search import search

        with open_dataset(request.dataset, seed=request.seed, group=request.group) as dataset:
            return search(dataset, request.search, on_event=on_event, track=request.track, **common)
    recipe = load_recipe(request.recipe)
    from training.run import train
    from training.tracking import tracked

    with (
        open_dataset(request.dataset, seed=request.seed, group=request.group) as dataset,
        tracked(request.track, f"{request.name}-{writer.folder.name}", recipe, on_event) as run,
    ):
        card = train(
            dataset,
            recipe,
            on_event=run.on_event,
            checkpoint_dir=writer.checkpoint_dir,
            cluster=request.cluster,
            **common,
        )
        run.end(card.metrics.headline(), tag=card.tag, dataset=card.dataset.tag)
    return card


def go_behind_predictions() -> None:
    """Lower this process's priority, and let it interrupt nobody when it wakes (SCHED_BATCH)."""
    with contextlib.suppress(OSError, AttributeError):  # not every system has it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.nice(get_settings().fit_nice)


def run_foreground(args: argparse.Namespace) -> int:
    """Train from the command line, progress on stderr and the key figures on stdout."""
    try:
        recipe = _recipe_of(args)
        from imgcls.data import Labelling, open_dataset
        from training.run import train

        labelling = Labelling(pattern=args.pattern, target=args.target, where=args.where)
        with open_dataset(
            args.data, seed=args.seed, labelling=labelling, table=args.table
        ) as dataset:
            card = train(
                dataset,
                recipe,
                name=args.name,
                on_event=ProgressLines(sys.stderr),
                baseline=args.baseline,
                seed=args.seed,
            )
    except ImgclsError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2 if err.status in (400, 404) else 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    print(summary(card))
    return 0


def summary(card: ModelCard) -> str:
    """The key figures of a card, for people."""
    metrics = card.metrics
    side = f"{card.preprocessing.width} x {card.preprocessing.height}"
    return "\n".join(
        (
            f"registered  {card.tag}",
            f"classes     {len(card.labels)} ({', '.join(card.labels[:8])}"
            f"{', ...' if len(card.labels) > 8 else ''})",
            f"input       {side} px",
            f"tested on   {metrics.images:,} images",
            *(f"{name:<11} {value:.4f}" for name, value in metrics.headline().items()),
            f"epochs      {len(card.history)}",
            f"duration    {card.duration_seconds:.1f} s",
        )
    )


class ProgressLines:
    """Events as lines: one an epoch, and one for each stage that begins."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._stage = ""
        self._epoch = 0

    def __call__(self, stage: str, **told: Unpack[Told]) -> None:
        if stage != self._stage:
            self._stage = stage
            print(f"{stage} {told.get('message') or ''}".rstrip(), file=self._out, flush=True)
        epoch = told.get("epoch")
        if epoch and epoch != self._epoch:
            self._epoch = epoch
            figures = "  ".join(f"{k} {v:.4f}" for k, v in (told.get("metrics") or {}).items())
            print(f"  epoch {epoch}/{told.get('epochs')}  {figures}", file=self._out, flush=True)


def _recipe_of(args: argparse.Namespace) -> Recipe:
    overrides: dict[str, Any] = dict(parse_override(text) for text in args.set)
    if args.config is None:
        return load_recipe(args.recipe or DEFAULT_RECIPE, overrides)
    return load_recipe(read_recipe_file(args.config), overrides)


def stoppable(writer: JobWriter, time_limit: float | None) -> Callable[[], None]:
    """Start the clock; what is returned ends it, and makes the process deaf to SIGTERM too.

    That is called before the model enters the store: from then on the job must live to say so.
    """
    deciding = threading.Lock()

    def over() -> None:
        with deciding:
            reason = f"The training was stopped at its time limit of {time_limit:g} s."
            writer.fail("time_limit", reason)
            sys.stderr.flush()
            os._exit(EXIT_TIME_LIMIT)  # the training may sit in native code for minutes

    timer = threading.Timer(time_limit or 0.0, over)
    timer.daemon = True
    if time_limit is not None:
        timer.start()

    def unstoppable() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deciding.acquire()  # for good: a clock that runs out now waits until the process ends
        timer.cancel()

    return unstoppable


def _fault(err: Exception) -> tuple[str, str]:
    """`code` and one-line `reason`."""
    if isinstance(err, ImgclsError):
        return err.code, err.message
    line = " ".join(str(err).split())[:300]
    return "internal", f"{type(err).__name__}: {line}" if line else type(err).__name__


def _terminated(signum: int, frame: FrameType | None) -> None:
    # An exception would be raised inside whatever runs, and pass through its `finally` blocks.
    raise SystemExit(EXIT_TERMINATED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train an image classifier and register it in the model store.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "data", nargs="?", help="a folder or archive of labelled images, or a stored dataset's tag"
    )
    parser.add_argument("--job", type=Path, metavar="DIR", help="run the job in this folder")
    parser.add_argument("--name", default="model", help="the model's name (default: model)")
    parser.add_argument(
        "--recipe", choices=list(PRESETS), help=f"what to train (default: {DEFAULT_RECIPE})"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="a recipe in YAML")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting of the recipe; may be repeated",
    )
    parser.add_argument("--pattern", metavar="TEXT", help="fields of file names: {id}_{rate}")
    parser.add_argument("--table", type=Path, metavar="FILE", help="fields by path: CSV or Parquet")
    parser.add_argument("--target", metavar="FIELD", help="the number to be predicted")
    parser.add_argument("--where", metavar="TEXT", help="images that take part: votes>=5")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the splits (default: 0); the recipe has its own",
    )
    parser.add_argument("--baseline", action="store_true", help="protect the model from removal")
    return parser


if __name__ == "__main__":
    sys.exit(main())
