"""Command line: `imgcls`, one module a group of commands.

    app -> data, eda, train, search, recipes, models, jobs, predict, serve, demo

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 stopped with Ctrl-C. The commands load
what they need when they run, so that help and listings are quick.
"""

import signal
import sys
from types import FrameType


def main() -> None:
    """Entry point of the `imgcls` script."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError:
        sys.exit("error: the command line is not installed: pip install 'imgcls[cli]'")
    try:
        from imgcls import console
        from imgcls.cli.app import app
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)

    # Asked to end, unwind: `train` stops its job and `demo` its server on the way out.
    signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with console.quiet_pipe():
        try:
            app()
        except SystemExit:
            sys.stdout.flush()
            raise


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
