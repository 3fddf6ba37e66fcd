"""Measure all entries of a source: chunks handed to threads, and to processes for large sets.

Decoding lets go of the interpreter lock, the rest of the work on a small image does not: of 21 us
of processor time for a 32 x 32 JPEG, 11 are the decoder's, so threads wait for each other. A child
costs 0.12 s of processor time before its first image, so small sets do without; the calling thread
works from the start, while it comes up.
"""

import contextlib
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO, Protocol, cast

import numpy as np

from imgcls.data import messages
from imgcls.data.children import Children, children_for, end
from imgcls.data.entries import Entries, Ints, Kind
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


_CHUNK_FILES, _CHUNK_S, _CHUNK_BYTES = (256, 2_048), 0.1, 4 * 2**20
"""Least and most files of a chunk, the seconds that it is to take, and about how many bytes it has
at most. Parent and child hold each other up when they exchange one: for a seventh of the time with
256 pictures of 32 x 32."""
_KEEP_FILES, _KEEP_BYTES = 10_000, 256 * 2**20
"""From either on a pass is kept for the case that it is interrupted."""
_MAX_THREADS = 8
_URL_THREADS = 16


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
    if isinstance(path, Url):  # the time goes into waiting for it
        threads, processes = threads or _URL_THREADS, 0
    if processes is None:
        processes = children_for(len(entries))
    if threads is None:
        threads = 1 if processes else min(usable_cores(), _MAX_THREADS)
    with opened(journal, entries) as kept:
        work = _Scan(kind, path, entries, progress, children or Children(), kept)
        return work.run(threads, processes)


def opened(journal: Journal | None, entries: Entries) -> Journal:
    """The journal of a pass; one that keeps nothing where the pass is over within seconds."""
    long = len(entries) >= _KEEP_FILES or entries.packed.sum() >= _KEEP_BYTES
    if journal is None or not long:
        return Journal()
    return journal.opened(journal_key(entries, get_settings().max_image_pixels))


class _Scan:
    """One scan: chunks are taken from the rows that are left by whoever is free."""

    def __init__(
        self,
        kind: Kind,
        path: Place,
        entries: Entries,
        progress: Progress | None,
        children: Children,
        kept: Journal,
    ) -> None:
        self._kind, self._path, self._entries = kind, path, entries
        self._max_pixels = get_settings().max_image_pixels
        self._progress = progress or (lambda done, total: None)
        self._reached = np.cumsum(entries.packed)
        self._kept = kept
        self._found = blank(len(entries))
        for start, part in kept.found.items():
            self._found.put(start, part)
        self._left = deque(gaps(len(entries), kept.found))
        self._done, self._reported = sum(map(len, kept.found.values())), 0
        self._files, self._workers = _CHUNK_FILES[0], 1
        self._failure: BaseException | None = None
        self._children = children
        self._changed = threading.Condition()

    def run(self, threads: int, processes: int) -> Measures:
        self._workers = threads + processes
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
            self._stop()
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
                began = time.perf_counter()
                self._store(chunk[0], measure(reader, chunk[1], self._max_pixels, bench))
                pace = len(chunk[1]) / (time.perf_counter() - began)
                self._files = int(np.clip(pace * _CHUNK_S, *_CHUNK_FILES))
                if report:
                    self._report()

    def _report(self) -> None:
        done = self._done
        if done > self._reported:
            self._reported = done
            self._progress(done, len(self._entries))

    def _next(self) -> tuple[int, Entries] | None:
        """The first row of a chunk, and the chunk; smaller ones at the end, so that nobody has to
        wait for long."""
        with self._changed:
            if not self._left:
                return None
            left = sum(gap.stop - gap.start for gap in self._left)
            files = min(self._files, max(_CHUNK_FILES[0], left // (2 * self._workers)))
            gap = self._left.popleft()
            stop = min(gap.stop, _end_of_chunk(self._reached, gap.start, files, _CHUNK_BYTES))
            if stop < gap.stop:
                self._left.appendleft(slice(stop, gap.stop))
        return gap.start, self._entries.take(slice(gap.start, stop))

    def _store(self, start: int, part: Measures) -> None:
        with self._changed:
            self._found.put(start, part)
            self._done += len(part)
            self._kept.add(start, part)
            self._changed.notify_all()

    def _stop(self) -> None:
        with self._changed:
            self._left.clear()

    def _hand(self, to: BinaryIO) -> int | None:
        """Give a child its next chunk, and return the first row of that."""
        if (chunk := self._next()) is None:
            return None
        with contextlib.suppress(BrokenPipeError):
            messages.send_entries(to, chunk[1])
        return chunk[0]

    def _fail(self, err: BaseException) -> None:
        self._failure = self._failure or err
        self._stop()

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
            while (start := following) is not None:
                found = _answer(child, answers)
                following = self._hand(to)  # it works on while this is stored
                self._store(start, found)
        except BaseException as err:
            self._fail(err)
        finally:
            end(child)


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


def gaps(count: int, found: Mapping[int, Measures]) -> list[slice]:
    """Rows of `count` that are not in what was found, by the first row of each part of that."""
    rows, end = [], 0
    for start in sorted(found):
        rows.append(slice(end, start))
        end = start + len(found[start])
    return [gap for gap in (*rows, slice(end, count)) if gap.start < gap.stop]


def slices(entries: Entries, left: Iterable[slice], files: int, size: int) -> list[slice]:
    """The rows that are left in runs of at most so many files, and of about `size` bytes."""
    reached, found = np.cumsum(entries.packed), []
    for rows in left:
        start = rows.start
        while start < rows.stop:
            stop = min(rows.stop, _end_of_chunk(reached, start, files, size))
            found.append(slice(start, stop))
            start = stop
    return found


def _end_of_chunk(reached: Ints, start: int, files: int, size: int) -> int:
    """`reached` are the bytes up to each row, that included."""
    before = reached[start - 1] if start else 0
    stop = int(np.searchsorted(reached, before + size, side="right"))
    return max(start + 1, min(stop, start + files))
