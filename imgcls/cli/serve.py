"""`imgcls serve`: becomes `imgcls.supervisor`, or `bentoml serve --reload`."""

import os
import sys
from typing import Annotated

import typer

from imgcls import console
from imgcls.cli.options import Json


def serve(
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option(help="0.0.0.0 takes requests from other machines.")] = (
        "127.0.0.1"
    ),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; IMGCLS_WORKERS, else 1.")
    ] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Restart when code changes.")] = False,
    json: Json = False,
) -> None:
    """Serve predictions, training and everything else over HTTP.

    It starts without any model too: train one, make it active, and the server follows.

    ```
    imgcls serve
    imgcls serve --host 0.0.0.0 --port 8080 --workers 4
    curl -F images=@cat.jpg http://127.0.0.1:3000/predict
    ```
    """
    from imgcls.auth import given_tokens
    from imgcls.cli.local_server import check_port, serve_command

    given_tokens()  # refused here in one line, not in the middle of a server's log
    check_port(host, port)
    environment = dict(os.environ)
    if workers is not None:
        environment["IMGCLS_WORKERS"] = str(workers)
    command = serve_command(host, port, workers=workers, reload=reload)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    console.note(f"Serving on {url} (documentation there); stop with Ctrl-C.")
    if json:
        console.show_json({"url": url, "pid": os.getpid()})
        sys.stdout.flush()
        os.dup2(2, 1)  # workers log to standard output, which is JSON's now
    os.execve(command[0], command, environment)
