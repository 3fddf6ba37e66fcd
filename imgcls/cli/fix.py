"""`imgcls data findings`, `mislabelled` and `fix`: what is wrong with data, and what mends it."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgcls import console
from imgcls.cli import options
from imgcls.cli.data import open_data
from imgcls.cli.options import Data, Json
from imgcls.cli.training_module import check_installed, run_module
from imgcls.errors import BadArgument
from imgcls.files import write_atomic

if TYPE_CHECKING:
    from imgcls.data.fix_list import FixRow
    from imgcls.findings import Finding

_LISTED = 5
"""Findings of each kind shown to people; `--json` gives all."""
Least = Annotated[
    float, typer.Option(min=0, max=1, help="Only findings with at least this confidence.")
]


def findings(
    data: Data,
    min_confidence: Least = 0.0,
    seed: options.Seed = 0,
    json: Json = False,
) -> None:
    """Look for faults: copies, leaks between splits, contradicting labels, classes that are one.

    Also files that cannot be read, and images that are tiny, blank, dark, blurred or of an odd
    shape.

    ```
    imgcls data findings photos.zip
    imgcls data findings photos --min-confidence 0.9 --json
    ```
    """
    found = [one for one in _find(data, seed)[1] if one.confidence >= min_confidence]
    _show(found, json)


def fix(
    data: Data,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the list of fixes, to be reviewed.")
    ] = None,
    apply: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Make a new version by a reviewed list.")
    ] = None,
    min_confidence: Least = 0.9,
    seed: options.Seed = 0,
    json: Json = False,
) -> None:
    """Write what would mend a dataset as a list, or make a new version by such a list.

    The list is a CSV, a line an image: drop it, relabel it, move it to another split; or merge a
    class into another. Take out what you do not want. The new version reads the same files.

    ```
    imgcls data fix photos --out fix.csv
    imgcls data fix photos --apply fix.csv
    imgcls train photos --name photos
    ```
    """
    if (out is None) == (apply is None):
        raise typer.BadParameter("give either --out FILE or --apply FILE")
    if out is not None:
        _write(data, out, min_confidence, seed, json)
        return
    assert apply is not None
    from imgcls.data import DatasetStore
    from imgcls.data.fix_list import read_csv

    rows = read_csv(apply)
    with open_data(data, seed) as dataset:
        tag, labels = dataset.tag, dataset.labels
    summary = DatasetStore().add_fixed(tag, rows, seed=seed)
    if new := sorted(set(summary.labels) - set(labels)):
        console.note(f"Classes that were not there before: {', '.join(new)}")
    if json:
        console.show_json(summary)
        return
    what = f"{len(summary.labels):,} classes"
    if summary.task == "regression":
        what = f"the target {summary.labelling.target}"
    images = console.plural(summary.images, "image")
    console.show(f"fixed {tag} as {summary.tag}: {images}, {what}")
    console.note(f"To see what changed: imgcls data diff {tag} {summary.tag}")


def mislabelled(
    data: Data,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the models; HOG and a linear head if not."),
    ] = None,
    changes: options.Changes = None,
    folds: Annotated[int, typer.Option(min=3, max=20, help="Models that judge.")] = 5,
    seed: options.Seed = 0,
    json: Json = False,
) -> None:
    """Look for wrong labels: models judge the images that they have not seen.

    What is found is kept with the dataset, and part of its findings and fixes from then on. The
    better the recipe, the surer the findings.

    ```
    imgcls data mislabelled photos
    imgcls data mislabelled photos --recipe linear-probe --set features.weights=r18.pth
    imgcls data fix photos --out fix.csv
    ```
    """
    from imgcls.findings.kept import kept

    check_installed("Models are needed to judge labels")
    with open_data(data, seed) as dataset:
        tag = dataset.tag
    given = [f"--folds={folds}", f"--seed={seed}", *(f"--set={text}" for text in changes or [])]
    given += [f"--recipe={recipe}"] if recipe else []
    given += ["--json"] if json else []
    run_module("training.mislabelled", *given, "--", tag)
    _show(kept(tag), json)


def _show(found: "list[Finding]", json: bool) -> None:
    if json:
        console.show_json({"findings": found})
        return
    if not found:
        console.note("Nothing was found.")
    kinds: dict[str, list[Finding]] = defaultdict(list)
    for finding in found:
        kinds[finding.kind].append(finding)
    for kind, some in kinds.items():
        rows = [
            (f"{one.confidence:.2f}", one.message, ", ".join(one.paths[:2]))
            for one in some[:_LISTED]
        ]
        console.show(f"{kind}: {len(some):,}", console.table(["sure", "what", "files"], rows))


def _write(data: str, out: Path, least: float, seed: int, json: bool) -> None:
    from imgcls.data.fix_list import to_csv
    from imgcls.findings.mending import to_fixes

    if out.exists():
        raise BadArgument(
            f"{out} exists already and may have been edited; give another name, or remove it."
        )
    tag, found = _find(data, seed)
    rows = to_fixes(found, least)
    write_atomic(out, to_csv(rows))
    if json:
        console.show_json({"dataset": tag, "fixes": rows})
        return
    console.show(f"{tag}: {len(rows):,} fixes in {out}", *_counts(rows))
    if rows:
        console.note(f"Review it, then: imgcls data fix {tag} --apply {out}")


def _counts(rows: "list[FixRow]") -> list[str]:
    counts = Counter(row.action for row in rows)
    return [f"  {action} {count:,}" for action, count in counts.items()]


def _find(data: str, seed: int) -> "tuple[str, list[Finding]]":
    from imgcls.findings import find

    with open_data(data, seed) as dataset:
        return dataset.tag, find(dataset)
