"""`imgcls data`: the stored datasets, each an index with its images or a reference to them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgcls import console
from imgcls.cli import options
from imgcls.cli.options import Json, Tag

if TYPE_CHECKING:
    from imgcls.data import Dataset, DatasetStore, DatasetSummary, Labelling

app = typer.Typer(no_args_is_help=True, help="Add, list and inspect datasets.")


def _store() -> "DatasetStore":
    from imgcls.data import DatasetStore

    return DatasetStore()


@app.command()
def add(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A folder, a zip or tar, or a table of images.")
    ],
    name: Annotated[
        str | None, typer.Option(help="The dataset's name; the file's or folder's if left out.")
    ] = None,
    pattern: options.Pattern = None,
    table: options.Table = None,
    target: options.Target = None,
    where: options.Where = None,
    group: options.Group = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the splits, where none are given.")] = 0,
    json: Json = False,
) -> None:
    """Index images in one pass and keep the index; the images stay where they are.

    The version is the hash of the content; what has changed since is added again, as another one.

        imgcls data add photos.zip
        imgcls data add /photos --name pets
        imgcls data add faces/ --pattern '{id}_{gender}_{rate}_{votes}' --target rate
    """
    read_as = options.labelling(pattern, target, where, group)
    with open_data(path, seed, read_as, table, name=name) as dataset:
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

    imgcls data list
    imgcls data list pets --json
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

    imgcls data show pets
    imgcls data show pets:3f2a9c01d4e5 --json
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
        ("source", summary.source),
        ("created", f"{summary.created_at.astimezone():%Y-%m-%d %H:%M}"),
    ]
    shown = [(key, value) for key, value in facts if value not in ("", "0: ")]
    console.show(console.facts(shown))


def open_data(
    data: str | Path,
    seed: int,
    labelling: "Labelling | None" = None,
    table: Path | None = None,
    *,
    name: str | None = None,
) -> "Dataset":
    """Open a path or a stored tag, with progress while it is indexed."""
    from imgcls.data import Labelling, open_dataset

    with console.Stages() as stages:
        dataset = open_dataset(
            data,
            name=name,
            seed=seed,
            labelling=labelling or Labelling(),
            table=table,
            progress=lambda done, total: stages.count("reading images", done, total),
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


def _splits(summary: "DatasetSummary") -> str:
    return ", ".join(f"{split} {images:,}" for split, images in summary.splits.items())
