"""Source: the folder or archive behind a dataset, recognised, listed, fingerprinted.

A fingerprint tells cheaply whether a source is still the one that was indexed: size and time of
an archive, the listing of a folder.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from imgcls.data.entries import Budget, Kind, Listing
from imgcls.data.fields import arrange_fields
from imgcls.data.folders import list_folder
from imgcls.data.index import build_index
from imgcls.data.labelling import FOLDERS, Labelling
from imgcls.data.layout import Layout, arrange
from imgcls.data.pattern import Pattern
from imgcls.data.scan import Progress, Scanner, scan
from imgcls.data.tables import Table
from imgcls.data.tars import compression, is_tar, list_tar, unpack
from imgcls.data.urls import (
    Place,
    Url,
    fetch,
    fetch_directory,
    head,
    list_url,
    place,
    url_fingerprint,
)
from imgcls.data.zips import NO_ARCHIVE, Expect, is_zip, list_zip
from imgcls.errors import DISK_FULL, GONE, BadArchive, BadDataset, out_of_reach
from imgcls.settings import get_settings


@dataclass(frozen=True, slots=True)
class Source:
    """`path` is what was asked for; `data` is what is read: the same, or the unpacked tar."""

    kind: Kind
    path: Place
    data: Place
    fingerprint: str
    listing: Listing

    @property
    def key(self) -> str:
        """Of this state of this source, fit for the name of a file."""
        text = os.fsencode(str(self.path)) + b"\0" + self.fingerprint.encode()
        return hashlib.blake2b(text, digest_size=10).hexdigest()


def fingerprint(path: Place) -> str | None:
    """Of a folder or an archive; None where there is nothing.

    Raises `BadDataset` and `StorageUnavailable` where that cannot be known.
    """
    if isinstance(path, Url):
        return url_fingerprint(path)
    try:
        if path.is_dir():
            return list_folder(path)[1]
        info = path.stat()
    except OSError as err:
        if err.errno in GONE:
            return None
        raise out_of_reach(path, err) from err
    return f"{info.st_size}-{info.st_mtime_ns}"


def open_source(path: Place, unpacked: Path, expect: Expect | None = None) -> Source:
    """Recognise and list. A compressed tar is unpacked to the file `unpacked`; `expect` is told how
    many files a zip has before they are listed.

    Raises `BadDataset`, and `BadArchive` for what is no archive, a broken or a hostile one;
    `StorageUnavailable` where a URL does not answer.
    """
    path = place(path)
    if isinstance(path, Url):
        return _open_url(path, unpacked)
    data = path
    try:
        if path.is_dir():
            listing, mark = list_folder(path)
            return Source("folder", path, path, mark, listing)
        mark = fingerprint(path) or ""
        with path.open("rb") as file:
            head, size = file.read(512), path.stat().st_size
            if how := compression(head):
                unpack(path, unpacked, how, _budget(size))
                data = unpacked
            elif is_tar(head) and not head.startswith(b"PK"):
                return Source("tar", path, path, mark, list_tar(file.fileno(), _budget()))
            elif is_zip(file.fileno()):
                return Source(
                    "zip", path, path, mark, list_zip(file.fileno(), _budget(size), expect)
                )
            else:
                raise BadArchive(f"{path.name} {NO_ARCHIVE}")
        with data.open("rb") as file:
            return Source("tar", path, data, mark, list_tar(file.fileno(), _budget()))
    except (FileNotFoundError, PermissionError) as err:
        raise BadDataset(
            f"{path} cannot be opened ({err.strerror}); check that it exists and may be read."
        ) from err
    except OSError as err:
        if err.errno in DISK_FULL:  # the one that is unpacked to
            raise
        raise out_of_reach(path, err) from err


def _open_url(url: Url, unpacked: Path) -> Source:
    """A compressed tar is copied; of other archives only the list of files is kept."""
    if url.is_dir():
        listing, mark = list_url(url)
        return Source("folder", url, url, mark, listing)
    mark = fingerprint(url) or ""
    copy = unpacked.with_suffix(".part")
    try:
        first = head(url, 512)
        if compression(first) or (is_tar(first) and not first.startswith(b"PK")):
            fetch(url, copy, get_settings().max_archive_mb << 20)
        else:
            fetch_directory(url, copy)
        found = open_source(copy, unpacked)
    except BadArchive as err:
        told = err.message.replace(copy.name, url.name)
        raise BadArchive(told if url.name in told else f"{url.name}: {told}") from err
    finally:
        copy.unlink(missing_ok=True)
    data = found.data if found.data == unpacked else url
    return Source(found.kind, url, data, mark, found.listing)


def index_source(
    source: Source,
    progress: Progress | None,
    labelling: Labelling = FOLDERS,
    table: Table | None = None,
    scanner: Scanner = scan,
) -> tuple[pa.Table, int]:
    """One pass over the images that take part: the index, without twins yet, and how many files it
    leaves out.

    `labelling` is a resolved one, and `table` the one that it names; `scanner` measures.
    """
    listing = source.listing
    listing.check_links()
    layout = _layout(listing.entries.names, listing.others, labelling, table)
    rows = np.array(layout.rows, dtype=np.int64)
    # Neighbours are read together; folders keep the order of their listing.
    order = np.argsort(listing.entries.offset[rows], kind="stable")
    entries = listing.entries.take(rows[order])
    if not entries.size.any():
        raise BadDataset(f"All {len(entries):,} images are empty; pack the files themselves.")
    found = scanner(source.kind, source.data, entries, progress=progress)
    index = build_index(layout.take(order.tolist()), entries, found)
    return index, listing.others + layout.loose


def _layout(names: list[str], others: int, labelling: Labelling, table: Table | None) -> Layout:
    if not names or labelling == FOLDERS:
        return arrange(names, others)
    if table is not None:
        return arrange_fields(names, others, table.records(names), labelling)
    pattern = Pattern(labelling.pattern or "")
    return arrange_fields(names, others, [pattern.match(name) for name in names], labelling)


def _budget(packed: int | None = None) -> Budget:
    settings = get_settings()
    return Budget(settings.max_archive_files, settings.max_archive_mb << 20, packed)
