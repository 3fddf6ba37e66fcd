"""`python -m training.entry MODULE ...`: a command of this package, which Ctrl-C ends quietly.

While a module is imported, an interrupt comes up anywhere in other packages, as a traceback or not
at all; so it ends the process at once until the command itself can clean up.
"""

import importlib
import os
import signal
import sys
from types import FrameType

STOPPED = 128 + signal.SIGINT


def main(module: str, *arguments: str) -> int:
    """The command's exit code, or that of an interrupt, which is told."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if not ignored:
        signal.signal(signal.SIGINT, _stop)
    command = importlib.import_module(module)
    try:
        if not ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code: int = command.main(arguments)
    except KeyboardInterrupt:
        _tell()
        return STOPPED
    return code


def _stop(number: int, frame: FrameType | None) -> None:
    _tell()
    os._exit(STOPPED)


def _tell() -> None:
    os.write(sys.stderr.fileno(), b"stopped\n")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
