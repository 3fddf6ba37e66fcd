"""Url: a folder or an archive behind an fsspec URL, such as `s3://bucket/photos`.

It has what is needed of `Path`, so that a `Place` is either. Archives are read by ranges where they
lie; only lists of files travel. fsspec is imported when the first URL is met.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcls.data import zips
from imgcls.data.entries import (
    NO_CRC,
    Listing,
    fingerprint,
    is_litter,
    is_wanted,
    make_entries,
    make_listing,
    printable,
)
from imgcls.errors import BadArgument, BadDataset, Conflict, ImgclsError, StorageUnavailable

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://")
_MARKS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
"""Where file systems say that a file has changed, the surest first."""
_BLOCK = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Url:
    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def name(self) -> str:
        return self.text.rpartition("/")[2]

    @property
    def parent(self) -> "Url":
        return Url(self.text.rpartition("/")[0])

    def exists(self) -> bool:
        with told(self):
            files, path = self.opened()
            if files.exists(path):
                return True
            try:
                files.info(path)
            except FileNotFoundError as err:  # so of a web server that does not answer, too
                cause = err.__cause__
                if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
                    raise cause from None
            return False

    def is_dir(self) -> bool:
        with told(self):
            files, path = self.opened()
            return bool(files.isdir(path))

    def opened(self) -> tuple[Any, str]:
        """The file system of fsspec, and the path in it."""
        try:
            import fsspec
        except ImportError as err:
            raise Conflict(f"{self} is a URL, which needs fsspec: install imgcls[scale].") from err
        files, path = fsspec.core.url_to_fs(self.text)
        return files, path.rstrip("/") or path


Place = Path | Url
"""Where images lie."""


def is_url(text: str) -> bool:
    """Whether a text begins as a URL does."""
    return _SCHEME.match(text) is not None


def place(source: str | Place) -> Place:
    """A URL as such, everything else as an absolute path. Raises `BadArgument` for no text."""
    if isinstance(source, Url):
        return source
    if source == "":  # a variable of the shell that is not set; not the folder around us
        raise BadArgument("The path is empty; name a folder, an archive or a table.")
    if isinstance(source, str) and is_url(source):
        return Url(source.rstrip("/"))
    return Path(os.path.abspath(source))


@contextmanager
def told(url: Url) -> Iterator[None]:
    """What goes wrong at a URL as errors of ours. Raises `BadDataset`, `StorageUnavailable`."""
    try:
        yield
    except ImgclsError:
        raise
    except ImportError as err:  # fsspec's own, which names the package
        raise Conflict(f"{url} cannot be read here: {err}") from err
    except (FileNotFoundError, PermissionError, ValueError) as err:
        raise BadDataset(f"{url} cannot be opened ({_brief(err)}); check the URL.") from err
    except Exception as err:  # every file system has errors of its own
        raise StorageUnavailable(f"{url} cannot be read: {_brief(err)}. Try again.") from err


def list_url(url: Url) -> tuple[Listing, str]:
    """As `list_folder`: the image files under `url`, and its fingerprint."""
    names: list[str] = []
    numbers: list[tuple[int, int, int, int, int]] = []
    stamps: list[bytes] = []
    others = 0
    with told(url):
        files, root = url.opened()
        for folder, _, found in files.walk(root, detail=True):
            inside = str(folder).rstrip("/")[len(root) :].lstrip("/")
            for base, info in found.items():
                name = f"{inside}/{base}" if inside else base
                if not base or is_litter(name):
                    continue
                if not is_wanted(name):
                    others += 1
                    continue
                size = int(info.get("size") or 0)
                names.append(name)
                numbers.append((0, size, size, 0, NO_CRC))
                stamps.append(f"{name}\0{size}\0{_mark(info)}".encode("utf-8", "surrogateescape"))
    places = [os.fsencode(name) for name in names]
    shown = [printable(name) for name in names]
    return make_listing("folder", make_entries(shown, numbers, places), others), fingerprint(stamps)


def url_fingerprint(url: Url) -> str | None:
    """Of a folder or an archive; None where there is nothing."""
    try:
        if url.is_dir():
            return list_url(url)[1]
        with told(url):
            files, path = url.opened()
            info = files.info(path)
            return f"{info['size']}-{_mark(info)}"
    except BadDataset:
        return None


def list_one(url: Url) -> Listing:
    """The one file at `url` as an image of the folder around it."""
    with told(url):
        files, path = url.opened()
        size = int(files.info(path)["size"] or 0)
    return make_listing(
        "folder", make_entries([url.name], [(0, size, size, 0, NO_CRC)], [os.fsencode(url.name)]), 0
    )


def head(url: Url, size: int) -> bytes:
    """The first bytes of a file."""
    with told(url):
        files, path = url.opened()
        found: bytes = files.cat_file(path, start=0, end=size)
        return found


def fetch(url: Url, target: Path, max_bytes: int) -> None:
    """Copy a file to this machine. Raises `BadDataset` above `max_bytes`."""
    with told(url):
        files, path = url.opened()
        if (size := int(files.info(path)["size"] or 0)) > max_bytes:
            raise BadDataset(
                f"{url} has {size >> 20:,} MiB; raise IMGCLS_MAX_ARCHIVE_MB to have it copied."
            )
        with files.open(path, "rb", block_size=_BLOCK) as remote, target.open("xb") as local:
            while block := remote.read(_BLOCK):
                local.write(block)


def fetch_directory(url: Url, target: Path) -> None:
    """A file of the size of the zip at `url` that holds its end alone, from its list of files on;
    the rest is a hole. `list_zip` reads it as the archive itself."""
    with told(url), target.open("xb") as local:
        files, path = url.opened()
        size = int(files.info(path)["size"] or 0)
        local.truncate(size)

        def read(count: int, at: int) -> bytes:
            found: bytes = files.cat_file(path, start=at, end=min(at + count, size))
            return found

        at = zips.find_directory(read, size).start
        local.seek(at)
        while block := read(_BLOCK, at) if at < size else b"":
            at += local.write(block)


def _mark(info: dict[str, Any]) -> str:
    return next((str(info[key]) for key in _MARKS if info.get(key) is not None), "")


def _brief(err: Exception) -> str:
    return f"{type(err).__name__}: {' '.join(str(err).split())[:200]}".rstrip(": ")
