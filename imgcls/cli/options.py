"""Options that several commands share."""

from typing import Annotated

import typer

from imgcls import console

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
        metavar="DATA", help="A folder, a zip or tar, or the tag of a stored dataset (`name`)."
    ),
]
