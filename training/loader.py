"""Pixels of a dataset's rows: decoded by threads, into `uint8` arrays.

Decoding is `imgcls.images.load`, the decoder that serving uses. It leaves the interpreter lock
while it works, so threads do, and there are no worker processes to feed.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt

from imgcls import images
from imgcls.card import Preprocessing
from imgcls.errors import BadDataset, BadImage
from imgcls.settings import usable_cores

Pixels = npt.NDArray[np.uint8]
Rows = Sequence[int] | npt.NDArray[np.int64]
Progress = Callable[[float], None]

CHUNK = 64


class Source(Protocol):
    """What is needed of a dataset here."""

    def read(self, row: int) -> bytes: ...

    def name(self, row: int) -> str: ...


def load_pixels(
    source: Source, rows: Rows, preprocessing: Preprocessing, *, progress: Progress | None = None
) -> Pixels:
    """All `rows` as `uint8 [n, height, width, 3]`, in their order.

    Raises `BadDataset` for an image that cannot be decoded.
    """
    pixels = np.empty((len(rows), preprocessing.height, preprocessing.width, 3), np.uint8)
    done = 0
    for chunk in iter_pixels(source, rows, preprocessing):
        pixels[done : done + len(chunk)] = chunk
        done += len(chunk)
        if progress:
            progress(done / len(rows))
    return pixels


def iter_pixels(
    source: Source, rows: Rows, preprocessing: Preprocessing, *, chunk: int = CHUNK
) -> Iterator[Pixels]:
    """The same in pieces of `chunk` images, decoded ahead while the caller works on the last."""

    def load(row: int) -> Pixels:
        try:
            return images.load(source.read(row), preprocessing)
        except BadImage as err:
            raise BadDataset(f"{source.name(row)} cannot be decoded: {err}") from err

    with ThreadPoolExecutor(max(2, usable_cores())) as pool:
        waiting: deque[list[Future[Pixels]]] = deque()
        try:
            for start in range(0, len(rows), chunk):
                waiting.append([pool.submit(load, int(r)) for r in rows[start : start + chunk]])
                if len(waiting) > 2:
                    yield np.stack([future.result() for future in waiting.popleft()])
            while waiting:
                yield np.stack([future.result() for future in waiting.popleft()])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
