"""Folders: a walk into entries, and the fingerprint that tells whether the folder changed.

Links to folders are not followed; links to files are, while their target lies under the root.
"""

import os
import stat
from pathlib import Path

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
from imgcls.errors import FORBIDDEN, GONE, BadDataset, out_of_reach


def list_folder(root: Path) -> tuple[Listing, str]:
    """The image files under `root`, and the fingerprint of (path, size, mtime).

    Raises `BadDataset`, and `StorageUnavailable` where a disk fails.
    """
    top = os.path.realpath(root)
    names: list[str] = []
    locations: list[bytes] = []
    numbers: list[tuple[int, int, int, int, int]] = []
    stamps: list[bytes] = []
    others = links = 0
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            scan = os.scandir(os.path.join(top, folder))
        except OSError as err:
            if err.errno not in GONE | FORBIDDEN:
                raise out_of_reach(os.path.join(root, folder), err) from err
            raise BadDataset(
                f"The folder {os.path.join(root, folder)} cannot be read ({err.strerror}); check "
                "that it exists and may be read."
            ) from err
        with scan:
            for item in scan:
                name = f"{folder}/{item.name}" if folder else item.name
                if is_litter(name):
                    continue
                if item.is_dir(follow_symlinks=False):
                    pending.append(name)
                    continue
                location = _inside(top, name) if item.is_symlink() else name
                if location is None:
                    links += 1
                    continue
                if not is_wanted(name):
                    others += 1
                    continue
                try:
                    info = item.stat()
                except OSError as err:
                    if err.errno not in GONE:
                        raise out_of_reach(os.path.join(root, name), err) from err
                    links += 1  # one that leads nowhere
                    continue
                if not stat.S_ISREG(info.st_mode):
                    continue
                names.append(printable(name))
                locations.append(os.fsencode(location))
                numbers.append((0, info.st_size, info.st_size, 0, NO_CRC))
                stamps.append(b"%s\0%d\0%d" % (os.fsencode(name), info.st_size, info.st_mtime_ns))
    entries = make_entries(names, numbers, locations)
    return make_listing("folder", entries, others, links), fingerprint(stamps)


def _inside(top: str, name: str) -> str | None:
    """Where a link leads, relative to the root; None where it leaves the root."""
    target = os.path.realpath(os.path.join(top, name))
    prefix = top.rstrip(os.sep) + os.sep
    return target[len(prefix) :] if target.startswith(prefix) else None
