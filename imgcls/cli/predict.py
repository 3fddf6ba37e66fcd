"""`imgcls predict`: a model over files, without a server."""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgcls import console
from imgcls.cli import options
from imgcls.cli.options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from imgcls.card import ModelCard
    from imgcls.engine import Engine
    from imgcls.offline import Answers

_SHOWN = 20


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATHS...", help="Images, folders, patterns, zips, tars, URLs."),
    ],
    model: Annotated[
        str | None, typer.Option(metavar="TAG", help="A model; the active one if left out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to a .csv, .parquet or .jsonl file.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, help="Keep the N largest probabilities.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Two classes: from where on it is the second."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Images in one batch.")] = 64,
    engine: options.Engine = "local",
    address: options.Address = None,
    json: Json = False,
) -> None:
    """Classify or score images on this machine, without a server.

    A file that cannot be read gets a row with an error; the exit code is 1 only if none could.
    Without `--out` a table of the first answers is shown; with `--json`, a JSON line a file.

    ```
    imgcls predict cat.jpg
    imgcls predict photos/ more.zip --out answers.csv
    imgcls predict 'scans/**/*.tif' --model pets --top-k 3 --json
    ```
    """
    from imgcls import offline
    from imgcls.cli.answers import JsonLines, OutFile

    on_ray = options.on_ray(engine, address)
    with ExitStack() as stack:
        inputs = stack.enter_context(offline.Inputs(paths))
        loaded = _engine(model)
        card = loaded.card
        card.check_options(top_k, threshold)
        total = inputs.count()
        if not total:
            raise typer.BadParameter("There is no image file in what was given.")
        file = stack.enter_context(OutFile(out, card)) if out else None
        lines = JsonLines(sys.stdout, card) if json and not out else None
        stages = stack.enter_context(console.Stages())
        run: Callable[..., Iterator[Answers]] = offline.predict
        if on_ray:
            from imgcls import scale

            stages.update("connecting to Ray")
            stack.enter_context(scale.connect(address))
            run = scale.predict
        first: list[Answers] = []
        counts: Counter[str] = Counter()
        scores = _Spread()
        done = failed = unsure = 0
        for answers in run(loaded, inputs, batch=batch, top_k=top_k, threshold=threshold):
            for sink in (file, lines):
                if sink is not None:
                    sink.write(answers)
            if done < _SHOWN:
                first.append(answers)
            counts.update(label for label in answers.labels if label is not None)
            scores.add([score for score in answers.scores if score is not None])
            unsure += sum(abstained or 0 for abstained in answers.abstained)
            done += len(answers.paths)
            failed += sum(error is not None for error in answers.errors)
            stages.count("predicting", done, total, f"{failed:,} bad" if failed else "")
    summary: dict[str, object] = {"model": card.tag, "images": done, "failed": failed}
    told = ""
    if card.task == "classification":
        summary |= {"labels": dict(counts)}
        told = ", ".join(f"{label} {count:,}" for label, count in counts.most_common(10))
    elif scores.count:
        mean = scores.total / scores.count
        summary |= {"scores": {"mean": mean, "min": scores.low, "max": scores.high}}
        spread = f"{mean:.4g} on average, {scores.low:.4g} to {scores.high:.4g}"
        told = f"{card.target or 'score'} {spread}"
    if card.abstain_below is not None:
        summary |= {"abstained": unsure}
        told = "; ".join(filter(None, (told, f"{unsure:,} abstained")))
    if json and out:
        console.show_json(summary | {"out": str(out)})
    elif not json:
        if not out:
            console.show(_table(first, card, top_k))
        bad = f", {failed:,} cannot be read" if failed else ""
        console.note(f"{card.tag}: {console.plural(done, 'image')}{bad}" + (told and f": {told}"))
        if out:
            console.show(f"wrote {out}")
        elif done > _SHOWN:
            console.note(f"The first {_SHOWN} are shown; --out FILE.csv or --json gives all.")
    if failed == done:
        raise typer.Exit(1)


@dataclass(slots=True)
class _Spread:
    """Of any number of scores, none of which is kept."""

    count: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, scores: list[float]) -> None:
        self.count += len(scores)
        self.total += sum(scores)
        self.low, self.high = min([self.low, *scores]), max([self.high, *scores])


def _engine(model: str | None) -> "Engine":
    from imgcls.engine import gate
    from imgcls.errors import NoActiveModel
    from imgcls.registry import Registry
    from imgcls.settings import usable_cores

    registry = Registry()
    tag = model or registry.active()
    if tag is None:
        raise NoActiveModel(
            "No model is active: name one with --model TAG, or make one active with "
            "`imgcls models set TAG`; `imgcls models list` shows those there are."
        )
    return gate(registry.folder(tag), threads=usable_cores())


def _table(first: "list[Answers]", card: "ModelCard", top_k: int | None) -> "Table":
    """The first rows; of classes with the runners-up in the last column."""
    row = _scored if card.task == "regression" else _classified
    rows = [
        (path, answers.errors[i], "", "") if answers.errors[i] else row(answers, i, card, top_k)
        for answers in first
        for i, path in enumerate(answers.paths)
    ]
    scored = ["path", "#score", "#from", "#to"]
    classified = ["path", "label", "#probability", "most likely"]
    columns = scored if card.task == "regression" else classified
    return console.table(columns, rows[:_SHOWN])


def _classified(
    answers: "Answers", i: int, card: "ModelCard", top_k: int | None
) -> tuple[object, ...]:
    shares = answers.probabilities[i]
    order = (-shares).argsort(kind="stable")[: top_k or 3].tolist()
    told = ", ".join(f"{card.labels[c]} {shares[c]:.3f}" for c in order)
    label = f"{answers.labels[i]}" + (" (abstained)" if answers.abstained[i] else "")
    return answers.paths[i], label, f"{answers.probability[i]:.4f}", told


def _scored(answers: "Answers", i: int, card: "ModelCard", top_k: int | None) -> tuple[object, ...]:
    low, high = answers.intervals[i] or ("", "")
    return answers.paths[i], answers.scores[i], low, high
