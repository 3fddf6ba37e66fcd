"""`imgcls data`: the stored datasets, each an index with its images or a reference to them."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgcls import console
from imgcls.cli import options
from imgcls.cli.options import Json, Tag

if TYPE_CHECKING:
    from rich.table import Table

    from imgcls.data import Dataset, DatasetDiff, DatasetStore, DatasetSummary, Labelling
    from imgcls.data.scan import Scanner
    from imgcls.data.urls import Place

app = typer.Typer(no_args_is_help=True, help="Add, list, compare and remove datasets.")
_LISTED = 20
"""Images of each kind shown to people; `--json` gives more."""


def _store() -> "DatasetStore":
    from imgcls.data import DatasetStore

    return DatasetStore()


@app.command()
def add(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="A folder, a zip or tar, a URL of one, or a table of images."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="The dataset's name; the file's or folder's if left out.")
    ] = None,
    pattern: options.Pattern = None,
    table: options.Table = None,
    target: options.Target = None,
    where: options.Where = None,
    group: options.Group = None,
    seed: options.Seed = 0,
    engine: options.Engine = "local",
    address: options.Address = None,
    json: Json = False,
) -> None:
    """Index images in one pass and keep the index; the images stay where they are.

    The version is the hash of the content; what has changed since is added again, as another one.

    ```
    imgcls data add photos.zip
    imgcls data add /photos --name pets
    imgcls data add s3://bucket/photos --engine ray --address 10.0.0.1:6379
    imgcls data add faces/ --pattern '{id}_{gender}_{rate}_{votes}' --target rate
    ```
    """
    from imgcls.data.urls import place

    read_as = options.labelling(pattern, target, where, group)
    scanner = options.scanner(engine, address)
    with open_data(place(path), seed, read_as, table, name=name, scanner=scanner) as dataset:
        tag = dataset.tag
    summary = _store().get(tag)
    if json:
        console.show_json(summary)
    else:
        console.show(f"added {summary.tag}: {console.plural(summary.images, 'image')}")
        console.note(f"To look at it: imgcls eda {summary.tag}")


@app.command("list")
def list_datasets(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only datasets of this name.")
    ] = None,
    json: Json = False,
) -> None:
    """List the datasets, newest first.

    ```
    imgcls data list
    imgcls data list pets --json
    ```
    """
    found = [one for one in _store().list() if name in (None, one.tag.partition(":")[0])]
    if json:
        console.show_json({"datasets": found})
    elif not found:
        console.note("There are no datasets yet: `imgcls data add PATH` makes one.")
    else:
        columns = ["tag", "#images", "#bad", "holds", "splits", "source", "created"]
        console.show(console.table(columns, [_row(one) for one in found]))


@app.command()
def show(tag: Tag, json: Json = False) -> None:
    """Show what is stored of a dataset; `imgcls eda` looks at its images.

    ```
    imgcls data show pets
    imgcls data show pets:3f2a9c01d4e5 --json
    ```
    """
    summary = _store().get(tag)
    if json:
        console.show_json(summary)
        return
    labelling = summary.labelling.model_dump(exclude_none=True)
    facts: list[tuple[str, object]] = [
        ("tag", summary.tag),
        ("images", f"{summary.images:,}"),
        ("unreadable", f"{summary.unreadable:,}"),
        ("ignored", f"{summary.ignored:,} other files"),
        ("classes", f"{len(summary.labels):,}: {', '.join(summary.labels)}"),
        ("splits", _splits(summary)),
        ("bytes", f"{summary.bytes:,}"),
        *labelling.items(),
        ("groups", ", ".join(summary.groups)),
        ("source", f"{summary.source}, {_store().source(summary.tag) or 'kept in the store'}"),
        ("created", f"{summary.created_at.astimezone():%Y-%m-%d %H:%M}"),
    ]
    shown = [(key, value) for key, value in facts if value not in ("", "0: ")]
    console.show(console.facts(shown))


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A version, `name:version`.")],
    new: Annotated[
        str, typer.Argument(metavar="NEW", help="Another, or `name` for the newest of that name.")
    ],
    seed: options.Seed = 0,
    json: Json = False,
) -> None:
    """Show which images came, went, or changed label, split, name or content.

    An image is known again by its content. The indexes are compared, so that the images of an
    old version need not be there any more.

    ```
    imgcls data diff pets:3f2a9c01d4e5 pets
    ```
    """
    from imgcls.data.diff import diff_versions

    found = diff_versions(_store(), old, new, seed=seed)
    if json:
        console.show_json(found)
    else:
        console.show(*_diff_tables(found))


@app.command()
def remove(
    tags: Annotated[list[str], typer.Argument(metavar="TAG...", help="The datasets to delete.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete datasets, once you have agreed: the index, and the images where they were uploaded.

    Images that lie elsewhere stay, and so do models. What a running job uses is refused.

    ```
    imgcls data remove pets:3f2a9c01d4e5
    imgcls data remove pets --yes
    ```
    """
    from imgcls.errors import BadArgument
    from imgcls.jobs import Jobs

    store, jobs = _store(), Jobs()
    # All of them must exist before the first one goes.
    found = dict.fromkeys(store.get(tag).tag for tag in tags)
    if not yes:
        if json or not console.is_attended():
            raise BadArgument("Nobody is there to be asked: add --yes to delete for good.")
        for tag in found:
            place = store.source(tag)
            images = f"the images in {place} stay" if place else "with its images"
            console.note(f"{tag}: {images}")
        typer.confirm(f"Delete {', '.join(found)} for good?", abort=True, err=True)
    removed = []
    for tag in found:
        with jobs.without(tag):
            removed.append(store.remove(tag))
            if not json:
                console.show(f"removed {tag}")
    if json:
        console.show_json({"removed": removed, "left": [one.tag for one in store.list()]})


def open_data(
    data: "str | Place",
    seed: int,
    labelling: "Labelling | None" = None,
    table: Path | None = None,
    *,
    name: str | None = None,
    scanner: "Scanner | None" = None,
) -> "Dataset":
    """Open a path or a stored tag, with progress while it is indexed."""
    from imgcls.data import Labelling, open_dataset
    from imgcls.data.opening import is_stored
    from imgcls.data.scan import scan

    if name is None and os.path.exists(str(data)) and is_stored(data):
        path = os.path.join(os.curdir, str(data))
        console.note(f"{data} is taken for the stored dataset, not for {path}; write that for it")
    with console.Stages() as stages:
        dataset = open_dataset(
            data,
            name=name,
            seed=seed,
            labelling=labelling or Labelling(),
            table=table,
            progress=lambda done, total: stages.count("reading images", done, total),
            scanner=scanner or scan,
        )
    return dataset


def _row(summary: "DatasetSummary") -> tuple[object, ...]:
    holds = summary.labelling.target or f"{len(summary.labels):,} classes"
    return (
        summary.tag,
        f"{summary.images:,}",
        f"{summary.unreadable:,}",
        holds,
        _splits(summary),
        summary.source,
        f"{summary.created_at.astimezone():%Y-%m-%d %H:%M}",
    )


def _diff_tables(found: "DatasetDiff") -> "list[Table | str]":
    alone = {"came": found.came, "went": found.went}
    changed = {
        "other label": found.relabelled,
        "other split": found.moved,
        "other name": found.renamed,
        "other content": found.replaced,
    }
    totals = {name: kind.total for name, kind in alone.items()}
    totals |= {name: kind.total for name, kind in changed.items()}
    counts = [(name, f"{total:,}") for name, total in totals.items() if total]
    made: list[Table | str] = [
        f"{found.old} -> {found.new}",
        console.table(["", "#images"], [("same", f"{found.same:,}"), *counts]),
    ]
    rows = [
        (name, image.path, f"{image.label} ({image.split})")
        for name, kind in alone.items()
        for image in kind.images[:_LISTED]
    ]
    rows += [
        (name, change.path, f"{_short(change.was)} -> {_short(change.now)}")
        for name, changes in changed.items()
        for change in changes.images[:_LISTED]
    ]
    if rows:
        made.append(console.table(["", "path", "what"], rows))
    if any(total > _LISTED for total in totals.values()):
        made.append(f"of each kind {_LISTED} are shown; --json gives more")
    return made


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if re.fullmatch("[0-9a-f]{40}", text) else text


def _splits(summary: "DatasetSummary") -> str:
    return ", ".join(f"{split} {images:,}" for split, images in summary.splits.items())
