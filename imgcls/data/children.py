"""Children: processes that measure chunks for `scan.py`.

They are started as `python -m imgcls.data.worker` and not by `multiprocessing`: nothing of the
parent's main module runs again (a server, a notebook, a script without a guard), and they import
only what measuring needs.
"""

import contextlib
import os
import subprocess
import sys
from collections import deque
from typing import BinaryIO, Self, cast

from imgcls.settings import usable_cores

_PROCESS_FILES = 20_000
"""From here on a child's start is won back."""


def children_for(files: int) -> int:
    """How many a scan of so many files takes."""
    return usable_cores() - 1 if files >= _PROCESS_FILES else 0


class Children:
    """Child processes that come up while a source is listed. Those not needed end with the context.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._ready: deque[subprocess.Popen[bytes]] = deque()

    def expect(self, files: int) -> None:
        """Start what a scan of so many files takes."""
        with contextlib.suppress(OSError):
            for _ in range(children_for(files)):
                self._ready.append(self._start())

    def take(self) -> "subprocess.Popen[bytes]":
        """One of them, or a new one where there is none. Raises `OSError`."""
        try:
            return self._ready.popleft()
        except IndexError:
            return self._start()

    def kill(self) -> None:
        """End the work of all at once; whoever took one waits for it."""
        for child in self._started:
            child.kill()

    def _start(self) -> "subprocess.Popen[bytes]":
        child = _start_child()
        self._started.append(child)
        return child

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._ready:
            end(child)


def end(child: subprocess.Popen[bytes]) -> None:
    """End a child, whatever it does."""
    child.kill()
    with contextlib.suppress(BrokenPipeError):
        cast(BinaryIO, child.stdin).close()
    cast(BinaryIO, child.stdout).close()
    child.wait()


def _start_child() -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        "OPENBLAS_NUM_THREADS": "1",
        # Memory of the size of a stack is kept for the next one: to ask the system for it anew,
        # page by page, took a fifth of a child's time.
        "MALLOC_MMAP_THRESHOLD_": str(2**24),
        "MALLOC_TRIM_THRESHOLD_": str(2**25),
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "imgcls.data.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # an interrupt reaches the parent, which ends its children
    )
