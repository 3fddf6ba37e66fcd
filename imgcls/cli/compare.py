"""`imgcls models compare`: what a test score was before, and what it is after."""

from typing import Annotated

import typer

from imgcls import console
from imgcls.cli.options import Json


def compare(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A model, `name:version`.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another, or `name` for its newest.")],
    json: Json = False,
) -> None:
    """Compare two models on the same test images, such as before and after a fix.

    They are those of the dataset that NEW was trained on, with the labels that they have there,
    without images of which either model has seen a copy.

    ```
    imgcls models compare photos:20261121083000a1b2c3 photos
    ```
    """
    from imgcls.comparison import compare as compared

    found = compared(old, new)
    if json:
        console.show_json(found)
    else:
        console.show(*found.lines())
