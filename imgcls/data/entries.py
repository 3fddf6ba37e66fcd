"""Entries: the image files of a source as columns, and which file names count as images.

A source (zip, tar, folder) lists its entries once; chunks of them travel to the workers that
measure them. Nothing here opens a file.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from imgcls.errors import BadArchive, BadDataset
from imgcls.images import EXTENSIONS

Kind = Literal["folder", "zip", "tar"]
Ints = npt.NDArray[np.int64]

MAX_IMAGE_BYTES = 256 * 2**20
"""A single encoded image above this is a row with an error: it would fill the memory."""
_UNPACKED, _RATIO = 256 * 2**20, 100
"""Bytes that any archive may unpack to, and how many times its size it may have beyond that.
Deflate alone packs zeros 1,030 times, photos less than twice."""
NO_CRC = -1
_METADATA = ("metadata.csv", "metadata.jsonl")
_SLASHES = re.compile("/+")
_LITTER = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True, slots=True)
class Entries:
    """One row an image file; every array has the length of `names`."""

    names: list[str]
    """Names inside the source, `/` between folders."""
    offset: Ints
    """Zip: of the local header, from the start of the file. Tar: of the data. Folder: 0."""
    packed: Ints
    """Bytes as they lie in the source."""
    size: Ints
    """Bytes of the image file."""
    method: Ints
    """0 stored, 8 deflated (the numbers of the zip format)."""
    crc: Ints
    """CRC-32 of the image file, `NO_CRC` where the source holds none."""
    locations: list[bytes] | None = None
    """Folders only: the path under the root as the file system spells it."""

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Any) -> "Entries":
        """The given rows (a slice or an integer array), in that order."""
        if not isinstance(rows, slice) and np.array_equal(rows, np.arange(len(self))):
            return self
        index = range(*rows.indices(len(self))) if isinstance(rows, slice) else rows.tolist()
        return Entries(
            [self.names[i] for i in index],
            self.offset[rows],
            self.packed[rows],
            self.size[rows],
            self.method[rows],
            self.crc[rows],
            None if self.locations is None else [self.locations[i] for i in index],
        )


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source holds: its images, and how many other files were passed over."""

    kind: Kind
    entries: Entries
    others: int
    """Metadata included."""
    metadata: Entries
    """Files that say more of the images: see `imagefolder.py`."""
    links: int = 0
    """Of `others`, links that were not followed."""

    def check_links(self) -> None:
        """Raises `BadDataset` where there are links in place of the images."""
        if not self.links or len(self.entries):
            return
        if self.kind == "folder":
            told = f"{self.links:,} links that lead outside of it; copy the images into it"
        else:
            told = f"{self.links:,} links; pack the files that they lead to (tar --dereference)"
        raise BadDataset(f"There are no images in the {self.kind}, only {told}.")


def make_listing(kind: Kind, entries: Entries, others: int, links: int = 0) -> Listing:
    """From the files for which `is_wanted` is true, images and metadata together."""
    others += links
    # Most sources have none: looking once at all names is quicker than at each.
    text = "\n".join(entries.names)
    metadata = np.zeros(len(entries), bool)
    if any(name in text for name in _METADATA):
        metadata = np.array([is_metadata(name) for name in entries.names], bool)
    if not metadata.any():
        return Listing(kind, entries, others, entries.take(slice(0, 0)), links)
    rest = entries.take(np.flatnonzero(metadata))
    images = entries.take(np.flatnonzero(~metadata))
    return Listing(kind, images, others + len(rest), rest, links)


def make_entries(
    names: list[str], numbers: Sequence[Sequence[int]] | Ints, locations: list[bytes] | None = None
) -> Entries:
    """Entries from a sequence of `(offset, packed, size, method, crc)`, one a name."""
    table = np.array(numbers, dtype=np.int64).reshape(len(names), 5)
    offset, packed, size, method, crc = (np.ascontiguousarray(column) for column in table.T)
    return Entries(names, offset, packed, size, method, crc, locations)


def fingerprint(stamps: Iterable[bytes]) -> str:
    """Another one when a stamp changes: what tells of each file whether it is still the same."""
    return hashlib.blake2b(b"\n".join(sorted(stamps)), digest_size=20).hexdigest()


def is_image(name: str) -> bool:
    """Whether the extension promises an image."""
    return name[name.rfind(".") :].lower() in EXTENSIONS


def is_metadata(name: str) -> bool:
    """Whether it is a file that may say more of the images around it."""
    return name.endswith(_METADATA) and name.rpartition("/")[2] in _METADATA


def is_wanted(name: str) -> bool:
    """Whether a source lists a file: an image or metadata."""
    return is_image(name) or is_metadata(name)


def wanted_among(names: list[str]) -> npt.NDArray[np.bool_]:
    """`is_wanted` of each."""
    suffixes = [name[name.rfind(".") :] for name in names]
    known = set(suffixes)
    images = {suffix for suffix in known if is_image(suffix)}
    if images == known:
        return np.ones(len(names), bool)
    found = (
        suffix in images or is_metadata(name) for suffix, name in zip(suffixes, names, strict=True)
    )
    return np.fromiter(found, bool, len(names))


def is_litter(name: str) -> bool:
    """Files that operating systems leave behind, and everything hidden."""
    if name.startswith(".") or "/." in name:
        return True
    if "__MACOSX" in name and "__MACOSX" in name.split("/"):
        return True
    return name.endswith(("b", "B", "i", "I")) and name.rpartition("/")[2].lower() in _LITTER


def litter_among(names: list[str]) -> npt.NDArray[np.bool_]:
    """`is_litter` of each."""
    text = "\n".join(["", *names]).lower()
    if not any(mark in text for mark in ("\n.", "/.", "__macosx", *_LITTER)):
        return np.zeros(len(names), bool)
    return np.array([is_litter(name) for name in names], bool)


def are_plain_images(names: list[str]) -> bool:
    """Whether all are images with one suffix, safe as they are, and none is litter. Quick, since it
    looks once at all names together; false where more is to be asked of some."""
    suffix = names[0][names[0].rfind(".") :] if names else ""
    text = "\n".join(["", *names, ""])
    if not is_image(suffix) or text.count(f"{suffix}\n") != len(names):
        return False
    if text.count("\n") != len(names) + 1 or ":" in text or "__MACOSX" in text:
        return False
    letters = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    # Nowhere two of "/" and ".", and neither begins a name.
    mark = (letters == ord("/")) | (letters == ord("."))
    return not (mark[1:] & (mark[:-1] | (letters[:-1] == ord("\n")))).any()


def safe_name(name: str) -> str:
    """The name of an archive entry, without `./` in front and with single slashes.

    Raises `BadArchive` where it leaves the root.
    """
    if not any(mark in name for mark in ("..", "//")) and (
        name[:1] not in ("/", ".") and name[1:2] != ":"
    ):
        return name
    while name.startswith("./"):
        name = name[2:]
    drive = len(name) > 1 and name[1] == ":" and name[0].isalpha()
    if name.startswith("/") or drive or ".." in name.split("/"):
        raise BadArchive(
            f"The archive holds {name[:200]!r}, which points outside of it; pack the folder again "
            "with plain relative names."
        )
    return _SLASHES.sub("/", name)


def safe_names(names: list[str]) -> list[str]:
    """`safe_name` of each."""
    text = "\n".join(["", *names])
    # Looking once at all names is enough, unless something in one of them asks for more.
    if not any(mark in text for mark in ("..", "//", ":", "\n/", "\n.")):
        return names
    return [safe_name(name) for name in names]


def printable(name: str) -> str:
    """The name as valid UTF-8: bytes that no encoding explains become escapes."""
    if name.isascii():
        return name
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


class Budget:
    """Counts files and bytes while a source is listed, and stops it at the limits."""

    def __init__(self, max_files: int, max_bytes: int, packed: int | None = None) -> None:
        """`packed` is the size of the archive, in bytes, where what it holds is compressed."""
        self.max_files, self.max_bytes = max_files, max_bytes
        self.most = None if packed is None else _UNPACKED + _RATIO * packed
        self.files = self.headers = self.bytes = 0

    def spend(self, size: int) -> None:
        """One more file of `size` bytes. Raises `BadArchive` above a limit."""
        self.files += 1
        self._spend(self.files, self.max_files, "files", size)

    def spend_all(self, sizes: Ints) -> None:
        """As `spend`, for many files."""
        self.files += len(sizes)
        self._spend(self.files, self.max_files, "files", sum(sizes.tolist()))

    def spend_header(self, size: int) -> None:
        """One more folder, or header of `size` bytes that belongs to a file. As `spend`."""
        self.headers += 1
        self._spend(self.headers, 2 * self.max_files, "folders and extended headers", size)

    def expect(self, count: int) -> None:
        """So many files and folders are to come. As `spend`."""
        self._check(count, self.max_files, "files and folders")

    def _spend(self, count: int, most: int, what: str, size: int) -> None:
        self._check(count, most, what)
        self.spend_bytes(size)

    def _check(self, count: int, most: int, what: str) -> None:
        if count > most:
            raise BadArchive(
                f"The archive holds more than {most:,} {what}; split it, or raise "
                "IMGCLS_MAX_ARCHIVE_FILES."
            )

    def spend_bytes(self, size: int) -> None:
        """Bytes of no file in particular. As `spend`."""
        self.bytes += size
        if self.most is not None and self.bytes > self.most:
            raise BadArchive(
                f"The archive unpacks to more than {_RATIO} times its size, which pictures never "
                "do; pack it again without files that are no pictures."
            )
        if self.bytes > self.max_bytes:
            raise BadArchive(
                f"The archive unpacks to more than {self.max_bytes >> 20:,} MiB; split it, or "
                "raise IMGCLS_MAX_ARCHIVE_MB."
            )
