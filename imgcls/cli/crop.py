"""`imgcls crop`: a dataset of what counts in the pictures, before training."""

from pathlib import Path
from typing import Annotated

import typer

from imgcls.cli.options import Json
from imgcls.cli.training_module import check_installed, run_module


def crop(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, a zip or tar of images.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The zip to be written.")],
    thing: Annotated[
        str, typer.Option("--object", metavar="NAME", help="What to cut out: a COCO category.")
    ] = "person",
    detector: Annotated[
        str | None, typer.Option(metavar="NAME", help="A detection network of torchvision.")
    ] = None,
    weights: Annotated[
        str, typer.Option(metavar="WEIGHTS", help="`coco`, or the path of a state dict.")
    ] = "coco",
    score: Annotated[float, typer.Option(min=0, max=1, help="Least score of a find.")] = 0.5,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the box's sides to add on each side.")
    ] = 0.05,
    json: Json = False,
) -> None:
    """Cut the pictures to what a detector finds in them, into a new zip.

    Names are kept, so that folders, patterns and tables fit it too. Pictures in which nothing is
    found are left out.

    ```
    imgcls crop faces/ --out people.zip
    imgcls train people.zip --pattern '{id}_{gender}_{rate}' --target rate
    ```
    """
    check_installed("A detector needs torch")
    options = [f"--object={thing}", f"--weights={weights}", f"--score={score}"]
    options += [f"--margin={margin}", *([f"--detector={detector}"] if detector else [])]
    if json:
        options.append("--json")
    run_module("training.crop", *options, "--", data, str(out))
