"""Measure all entries of a source: chunks handed to threads, and to processes for large sets.

Decoding lets go of the interpreter lock, the rest of the work on a small image does not: of 20 us
of processor time for a 32 x 32 JPEG, 11 are the decoder's, so threads wait for each other. A child
costs 0.12 s of processor time before its first image, so small sets do without.

Children are started as `python -m imgcls.data.worker` and not by `multiprocessing`: nothing of the
parent's main module runs again (a server, a notebook, a script without a guard), and they import
only what measuring needs. The calling thread works from the start, while they come up.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import BinaryIO, Protocol, Self, cast

import numpy as np

from imgcls.data import messages
from imgcls.data.entries import Entries, Kind
from imgcls.data.journal import Journal, journal_key
from imgcls.data.measure import Bench, Measures, blank, measure
from imgcls.data.url_reader import open_reader
from imgcls.data.urls import Place, Url
from imgcls.errors import BY_CODE, ImgclsError
from imgcls.settings import get_settings, usable_cores

Progress = Callable[[int, int], None]
"""Called in the caller's thread with (images done, images in all); what it raises ends the scan."""


class Scanner(Protocol):
    """What measures all entries of a source: `scan`, or the same work done elsewhere."""

    def __call__(
        self,
        kind: Kind,
        path: Place,
        entries: Entries,
        *,
        progress: Progress | None = None,
        journal: Journal | None = None,
    ) -> Measures: ...


_CHUNK_FILES, _CHUNK_BYTES = 256, 4 * 2**20
_ARCHIVE_FILES, _CHUNKS_A_CORE = 2_048, 32
"""A chunk of a large archive has up to so many files, where each core gets so many chunks: parent
and child hold each other up when they exchange one, for a seventh of the time with 256 pictures of
32 x 32. Files that lie apart, in a folder or behind a URL, may take long enough each for progress
to stand still meanwhile."""
_PROCESS_FILES = 20_000
"""From here on a child's start is won back."""
_KEEP_FILES, _KEEP_BYTES = 10_000, 256 * 2**20
"""From either on a pass is kept for the case that it is interrupted."""
_MAX_THREADS = 8
_URL_THREADS = 16


class Children:
    """Child processes that come up while a source is listed. Those not needed end with the context.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._ready: deque[subprocess.Popen[bytes]] = deque()

    def expect(self, files: int) -> None:
        """Start what a scan of so many files takes."""
        if files >= _PROCESS_FILES:
            with contextlib.suppress(OSError):
                for _ in range(usable_cores() - 1):
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
            _end(child)


def scan(
    kind: Kind,
    path: Place,
    entries: Entries,
    *,
    progress: Progress | None = None,
    threads: int | None = None,
    processes: int | None = None,
    journal: Journal | None = None,
    children: Children | None = None,
) -> Measures:
    """Measures in the order of `entries`, which must be sorted by offset.

    `threads` (the caller's included) and `processes` default to what suits the number of files
    and of cores; `children` are taken before others are started. `journal` keeps what has been
    measured: where it has something of a pass over the same entries, that pass goes on. Raises
    `BadDataset` where the source cannot be opened.
    """
    cores = usable_cores()
    if isinstance(path, Url):  # the time goes into waiting for it
        threads, processes = threads or _URL_THREADS, 0
    large = len(entries) >= _PROCESS_FILES
    if processes is None:
        processes = cores - 1 if large else 0
    if threads is None:
        threads = 1 if processes else min(cores, _MAX_THREADS)
    work = _Scan(kind, path, entries, progress, children or Children())
    with opened(journal, entries, work.key) as kept:
        return work.run(threads, processes, kept)


def opened(journal: Journal | None, entries: Entries, key: str) -> Journal:
    """The journal of a pass; one that keeps nothing where the pass is over within seconds."""
    long = len(entries) >= _KEEP_FILES or entries.packed.sum() >= _KEEP_BYTES
    return (journal if long and journal else Journal()).opened(key)


class _Scan:
    """One scan: chunks are taken from `_todo` by whoever is free."""

    def __init__(
        self,
        kind: Kind,
        path: Place,
        entries: Entries,
        progress: Progress | None,
        children: Children,
    ) -> None:
        self._kind, self._path, self._entries = kind, path, entries
        self._max_pixels = get_settings().max_image_pixels
        self._progress = progress or (lambda done, total: None)
        files = _CHUNK_FILES
        if kind != "folder" and not isinstance(path, Url):
            most = len(entries) // (_CHUNKS_A_CORE * usable_cores())
            files = max(files, min(most, _ARCHIVE_FILES))
        chunks = slices(entries, files, _CHUNK_BYTES)
        self.key = journal_key(entries, self._max_pixels, chunks)
        self._todo = deque(enumerate(chunks))
        self._kept: Journal | None = None
        self._starts = [chunk.start for chunk in chunks]
        self._found = blank(len(entries))
        self._done = self._reported = 0
        self._failure: BaseException | None = None
        self._children = children
        self._changed = threading.Condition()

    def run(self, threads: int, processes: int, kept: Journal) -> Measures:
        for number, part in kept.found.items():
            self._store(number, part)
        self._todo = deque(chunk for chunk in self._todo if chunk[0] not in kept.found)
        self._kept = kept
        self._report()
        helpers = [threading.Thread(target=self._help_by_child) for _ in range(processes)]
        helpers += [threading.Thread(target=self._help_by_thread) for _ in range(threads - 1)]
        try:
            for helper in helpers:
                helper.start()
            self._work(report=True)
            while any(helper.is_alive() for helper in helpers):
                with self._changed:
                    self._changed.wait(0.05)
                self._report()
            self._report()
        except BaseException:
            self._todo.clear()
            self._children.kill()
            raise
        finally:
            for helper in helpers:
                if helper.is_alive():
                    helper.join()
        if self._failure is not None:
            raise self._failure
        assert self._done == len(self._entries)
        return self._found

    def _work(self, *, report: bool = False) -> None:
        bench = Bench()
        with open_reader(self._kind, self._path) as reader:
            while (chunk := self._next()) is not None:
                self._store(chunk[0], measure(reader, chunk[1], self._max_pixels, bench))
                if report:
                    self._report()

    def _report(self) -> None:
        done = self._done
        if done > self._reported:
            self._reported = done
            self._progress(done, len(self._entries))

    def _next(self) -> tuple[int, Entries] | None:
        try:
            number, rows = self._todo.popleft()
        except IndexError:
            return None
        return number, self._entries.take(rows)

    def _store(self, number: int, part: Measures) -> None:
        with self._changed:
            self._found.put(self._starts[number], part)
            self._done += len(part)
            if self._kept is not None:
                self._kept.add(number, part)
            self._changed.notify_all()

    def _hand(self, to: BinaryIO) -> int | None:
        """Give a child its next chunk, and return the number of that."""
        if (chunk := self._next()) is None:
            return None
        with contextlib.suppress(BrokenPipeError):
            messages.send_entries(to, chunk[1])
        return chunk[0]

    def _fail(self, err: BaseException) -> None:
        self._failure = self._failure or err
        self._todo.clear()

    def _help_by_thread(self) -> None:
        try:
            self._work()
        except BaseException as err:
            self._fail(err)

    def _help_by_child(self) -> None:
        try:
            child = self._children.take()
        except OSError:
            return  # no more processes to be had: the others do the work
        to, answers = cast(BinaryIO, child.stdin), cast(BinaryIO, child.stdout)
        try:
            with contextlib.suppress(BrokenPipeError):  # its death shows in the answer
                path = os.fsencode(str(self._path)).decode("latin-1")
                head = {"kind": self._kind, "path": path, "max_pixels": self._max_pixels}
                messages.send(to, head)
            following = self._hand(to)
            while (number := following) is not None:
                found = _answer(child, answers)
                following = self._hand(to)  # it works on while this is stored
                self._store(number, found)
        except BaseException as err:
            self._fail(err)
        finally:
            _end(child)


def _answer(child: subprocess.Popen[bytes], answers: BinaryIO) -> Measures:
    message = messages.receive(answers)
    if message is None:
        raise ImgclsError(
            f"A process that reads the images ended with code {child.wait()}; there may be too "
            "little memory. Free some, or lower IMGCLS_MAX_IMAGE_PIXELS, and try again."
        )
    if "code" in message[0]:
        raise BY_CODE[message[0]["code"]](message[0]["error"])
    return messages.to_measures(*message)


def slices(entries: Entries, files: int, size: int) -> list[slice]:
    """Runs of at most so many files, and of about `size` bytes."""
    reached = np.cumsum(entries.packed)
    bounds, start = [], 0
    while start < len(entries):
        before = reached[start - 1] if start else 0
        stop = int(np.searchsorted(reached, before + size, side="right"))
        stop = max(start + 1, min(stop, start + files))
        bounds.append(slice(start, stop))
        start = stop
    return bounds


def _end(child: subprocess.Popen[bytes]) -> None:
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
