"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from imgcls import console

if TYPE_CHECKING:
    from imgcls.data import Labelling
    from imgcls.data.scan import Scanner

Json = Annotated[
    bool,
    typer.Option(
        "--json", callback=console.use_json, is_eager=True, help="Print JSON instead of tables."
    ),
]
Tag = Annotated[
    str, typer.Argument(metavar="TAG", help="`name:version`, or `name` for its newest version.")
]
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder, zip or tar, its URL, a table of images, or the tag of a stored dataset.",
    ),
]
Pattern = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Fields of file names: `{id}_{gender}_{rate}_{votes}`."),
]
Table = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="A CSV or Parquet with `path` and fields, a row an image, instead."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(metavar="FIELD", help="The field that is a number to be predicted."),
]
Where = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Images that take part: 'votes>=5 and gender==m'."),
]
Group = Annotated[
    str | None,
    typer.Option(metavar="FIELD", help="The field whose values divide the images into groups."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe; may be repeated."),
]
Name = Annotated[str | None, typer.Option(help="The model's name; the dataset's if left out.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the splits, where none are given.")]
Baseline = Annotated[bool, typer.Option("--baseline", help="Protect the model from removal.")]
Activate = Annotated[
    bool, typer.Option("--activate", help="Make the model the active one when it is done.")
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHERE",
        help="Keep the figures of the run in tensorboard or mlflow; may be repeated.",
    ),
]
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option(help="Where images are read: on this machine, or on a Ray cluster."),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="The Ray cluster; RAY_ADDRESS if left out, or one started for the purpose.",
    ),
]


def on_ray(engine: str, address: str | None) -> bool:
    """Whether Ray is asked for. Raises `Conflict` where it is and is not installed."""
    if engine == "local":
        if address is not None:
            raise typer.BadParameter("--address is that of a Ray cluster: add --engine ray.")
        return False
    from imgcls.scale import check_installed

    check_installed()
    return True


def cluster(engine: str, address: str | None) -> str | None:
    """The address of the Ray cluster, where one is asked for; `local` for one of our own."""
    if not on_ray(engine, address):
        return None
    from imgcls.scale import address_or_default

    return address_or_default(address)


def scanner(engine: str, address: str | None) -> "Scanner":
    """What measures images, by these options."""
    from imgcls.data.scan import scan

    if not on_ray(engine, address):
        return scan
    from imgcls.scale import RayScanner

    return RayScanner(address)


def labelling(
    pattern: str | None, target: str | None, where: str | None, group: str | None
) -> "Labelling":
    """What these options say of a dataset."""
    from imgcls.data import Labelling

    return Labelling(pattern=pattern, target=target, where=where, group=group)
