"""`imgcls demo`: the whole line once, on this machine."""

from typing import Annotated

import typer

from imgcls import console
from imgcls.cli.options import Json


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the server running at the end.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    json: Json = False,
) -> None:
    """Try everything in a minute: data, training, the store, a server, predictions.

    The data is scikit-learn's 1,797 scanned digits. The model is called `digits` and stays in
    the store; it becomes the active one.

    ```
    imgcls demo
    imgcls demo --keep --port 3000
    ```
    """
    from imgcls.cli.demo_steps import run

    result = run(keep=keep, port=port)
    if json:
        console.show_json(result)
