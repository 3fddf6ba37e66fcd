"""UrlReader: a `Reader` of what lies behind a URL, by ranges of bytes.

A file that is gone is a broken image, as on a disk. A storage that does not answer ends the work:
images must not be called broken because a network is.
"""

import os
import time
from typing import Any

from imgcls.data.entries import MAX_IMAGE_BYTES, Kind
from imgcls.data.reader import Reader, too_large
from imgcls.data.urls import Place, Url, told
from imgcls.errors import BadDataset, BrokenImage

_TRIES = 3
_PAUSE = 0.5
"""Seconds before the second try, twice as long before the next."""


def open_reader(kind: Kind, at: Place) -> Reader:
    """Raises `BadDataset` where the source cannot be opened."""
    return UrlReader(kind, at) if isinstance(at, Url) else Reader(kind, at)


class UrlReader(Reader):
    """Thread-safe where the file system is, as fsspec's are."""

    def __init__(self, kind: Kind, url: Url) -> None:
        self.kind, self._url = kind, url
        self._fd = -1
        with told(url):
            self._files, self._root = url.opened()
            if not url.exists():
                raise BadDataset(f"There is nothing at {url}; check the URL.")

    def _read_file(self, location: bytes) -> bytes:
        path = f"{self._root}/{os.fsdecode(location)}"
        data: bytes = self._get(path, 0, MAX_IMAGE_BYTES + 1)
        if len(data) > MAX_IMAGE_BYTES:
            raise too_large(len(data))
        return data

    def _pread(self, length: int, offset: int) -> bytes:
        data: bytes = self._get(self._root, offset, offset + length)
        return data

    def _get(self, path: str, start: int, end: int) -> Any:
        with told(self._url):
            for attempt in range(_TRIES):
                try:
                    return self._files.cat_file(path, start=start, end=end)
                except FileNotFoundError as err:
                    raise BrokenImage("The file is gone.") from err
                except Exception:  # every file system has errors of its own
                    if attempt + 1 == _TRIES:
                        raise
                    time.sleep(_PAUSE * 2**attempt)
