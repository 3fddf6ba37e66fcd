"""The files of Prometheus' counts, with room on the disk before they are mapped into memory.

`prometheus_client` maps files of holes. Where the disk is full when a hole is first written to, the
kernel has no other answer than SIGBUS, which ends the worker.
"""

import contextlib
import logging
import os
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import _INITIAL_MMAP_SIZE, MmapedDict

logger = logging.getLogger("imgcls.metrics")

_MOST_OF_AN_ENTRY = 64
"""Bytes that an entry may take beside its key."""


class ReservedDict(MmapedDict):
    """A file of counts that goes on in memory alone where the disk has no room for it."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode and not _reserved(filename, _INITIAL_MMAP_SIZE):
            with contextlib.suppress(OSError):
                os.unlink(filename)  # who reads all files would stumble over an empty one
            filename = f"/proc/self/fd/{_memory()}"
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        full = self._used + len(key.encode()) + _MOST_OF_AN_ENTRY > self._capacity
        if full and not _reserved(self._fname, 2 * self._capacity):
            self._go_on_in_memory()
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _go_on_in_memory(self) -> None:
        self._f.close()
        self._f: Any = os.fdopen(_memory(), "r+b")
        self._f.write(self._m[:])
        self._f.flush()


def reserve_room() -> None:
    """Let every file of counts that this process makes from now on be a `ReservedDict`."""
    if hasattr(os, "memfd_create"):
        values.MmapedDict = ReservedDict  # type: ignore[attr-defined]


def _reserved(path: str, size: int) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)
    except OSError as err:
        logger.warning("No room for %s (%s): some metrics are not shown", path, err.strerror)
        return False
    return True


def _memory() -> int:
    return os.memfd_create("imgcls-metrics")
