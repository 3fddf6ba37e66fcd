"""Shelf: the entries of a store on disk, found by tag or by path, published, removed.

    datasets/<name>/<version>/dataset.json      written last: without it there is no dataset
                              index-<id>.parquet
                              archive-<id>.zip  only where the store owns the data
                              fix.csv           only where fixes made it of another version
                              sheet-<id>.png    contact sheets that were asked for

Readers take their file names from `dataset.json`, which is replaced as a whole: a dataset added
again while it is being opened shows either state, never a mixture.
"""

import contextlib
import os
import shutil
from pathlib import Path
from uuid import uuid4

from imgcls.data.labelling import Labelling
from imgcls.data.source import fingerprint
from imgcls.data.summary import (
    ENTRY_FILE,
    FIXES_FILE,
    TAG,
    DatasetSummary,
    Entry,
    load_entry,
)
from imgcls.data.urls import Place, place
from imgcls.errors import (
    BadDataset,
    DatasetInUse,
    DatasetNotFound,
    ImgclsError,
    out_of_reach,
)
from imgcls.files import locked, write_atomic

Found = list[tuple[Path, Entry]]


class Shelf:
    """An empty one is the normal first state. Several processes may use one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def entries(self, name: str) -> Found:
        """Whole entries; folders of work in progress begin with a dot and are left out."""
        try:
            files = sorted(self.root.glob(f"{name}/*/{ENTRY_FILE}"))
        except OSError:
            return []
        return [
            (file.parent, entry)
            for file in files
            if file.parent.parent.name[0] != "." and (entry := load_entry(file)) is not None
        ]

    def summaries(self) -> list[DatasetSummary]:
        """Of all entries, newest first."""
        found = [entry.summary for _, entry in self.entries("*")]
        return sorted(found, key=lambda summary: summary.created_at, reverse=True)

    def known(self, path: Place, name: str, labelling: Labelling) -> tuple[Path, Entry] | None:
        """The entry made from this path in this way, while the path is unchanged."""
        text = str(path)
        found = [
            (folder, entry)
            for folder, entry in self.entries(name)
            if text in entry.marks
            and entry.labelling == labelling
            and (folder / entry.index).exists()
        ]
        mark = fingerprint(path) if found else None
        for folder, entry in found:
            if entry.marks[text] == mark and (text not in entry.also or is_whole(folder, entry)):
                return folder, entry
        return None

    def keep_first(self, entry: Entry) -> tuple[Path, Entry] | None:
        """The entry of the same content that stays, and knows of this source from now on.

        None where there is none, and where this one takes its place: as an upload, of the same
        source, or of data that the other one has lost.
        """
        name, tag = entry.summary.tag.partition(":")[0], entry.summary.tag
        found = next((item for item in self.entries(name) if item[1].summary.tag == tag), None)
        if found is None or entry.moved:
            return None
        folder, first = found
        if (entry.source == first.source and not first.moved) or not is_whole(folder, first):
            return None
        also = first.also | {entry.source: entry.fingerprint}
        dated = first.summary.model_copy(update={"created_at": entry.summary.created_at})
        first = first.model_copy(update={"also": also, "summary": dated})
        write_atomic(folder / ENTRY_FILE, first.model_dump_json(indent=2))
        return folder, first

    def entry(self, tag: str) -> tuple[Path, Entry]:
        """By `name:version`, or the latest by `name`. Raises `DatasetNotFound`, `BadDataset`."""
        if match := TAG.fullmatch(tag):
            name, version = match.groups()
            found = [
                item
                for item in self.entries(name)
                if version in (None, "latest") or item[1].summary.tag == tag
            ]
            if found:
                return max(found, key=lambda item: item[1].summary.created_at)
            folder = "*" if version in (None, "latest") else version
            if damaged := sorted(self.root.glob(f"{name}/{folder}/{ENTRY_FILE}")):
                try:
                    damaged[0].read_bytes()
                except OSError as err:
                    raise out_of_reach(damaged[0], err) from err
                raise BadDataset(
                    f"{damaged[0]} is damaged or of another version; add the dataset again."
                )
        tags = [summary.tag for summary in self.summaries()]
        known = f"there are: {', '.join(tags[:20])}" if tags else "the store is empty"
        raise DatasetNotFound(f"There is no dataset {tag[:100]!r}; {known}.", detail=tags[:100])

    def fixed_from(self, tag: str) -> Found:
        """The versions that fixes made of one, and those made of them."""
        found = [item for item in self.entries(tag.partition(":")[0]) if item[1].fixed == tag]
        return found + [item for _, entry in found for item in self.fixed_from(entry.summary.tag)]

    def dated(self, entry: Entry) -> Entry:
        """As old as the same content is in the store, unless that has other successors than fixes:
        then the name means it again."""
        name, _, _ = entry.summary.tag.partition(":")
        found = {one.summary.tag: one.summary for _, one in self.entries(name)}
        before = found.get(entry.summary.tag)
        if before is None:
            return entry
        fixed = {one.summary.tag for _, one in self.fixed_from(before.tag)}
        others = [one for tag, one in found.items() if tag not in fixed]
        if max(others, key=lambda one: one.created_at) is not before:
            return entry
        same = entry.summary.model_copy(update={"created_at": before.created_at})
        return entry.model_copy(update={"summary": same})

    def publish(self, entry: Entry, work: Path, archive: Place) -> Path:
        """Move what was made in `work` to where readers look, the entry last: all or nothing."""
        name, _, version = entry.summary.tag.partition(":")
        folder = self.root / name / version
        write_atomic(work / ENTRY_FILE, entry.model_dump_json(indent=2))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.replace(work / entry.index, folder / entry.index)
            if entry.archive:
                shutil.move(str(archive), folder / entry.archive)
            if (work / FIXES_FILE).exists():
                os.replace(work / FIXES_FILE, folder / FIXES_FILE)
            os.replace(work / ENTRY_FILE, folder / ENTRY_FILE)
        except BaseException:
            withdraw(entry, folder, archive)
            raise
        for file_path in folder.iterdir():
            ours = file_path.name.startswith(("index-", "archive-"))
            if ours and file_path.name not in (entry.index, entry.archive):
                with contextlib.suppress(OSError):
                    file_path.unlink()
        return folder

    def remove(self, tag: str) -> str:
        """See `DatasetStore.remove`."""
        with locked(self.root / ".lock"):
            folder, entry = self.entry(tag)
            for other, used in self.entries("*"):
                if other != folder and Path(used.source).is_relative_to(folder):
                    raise DatasetInUse(
                        f"{used.summary.tag} reads the images of {entry.summary.tag}; remove it "
                        "first."
                    )
            gone = self.root / f".tmp-{uuid4().hex[:12]}"
            os.replace(folder, gone)
            with contextlib.suppress(OSError):  # it has other versions
                folder.parent.rmdir()
        shutil.rmtree(gone, ignore_errors=True)
        return entry.summary.tag


def link(archive: Path, name: Path) -> None:
    """The same bytes under another name, so that either version can be removed alone."""
    try:
        os.link(archive, name)
    except OSError:  # not every file system has links
        shutil.copyfile(archive, name)


def withdraw(entry: Entry, folder: Path, archive: Place) -> None:
    """Take back what was published of an entry, and the archive to where it came from."""
    if entry.archive and not archive.exists():
        shutil.move(folder / entry.archive, str(archive))
    for name in (entry.index, entry.archive):
        if name is not None:
            (folder / name).unlink(missing_ok=True)
    if not (folder / ENTRY_FILE).exists():
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # it has other versions
        folder.parent.rmdir()


def lost(entry: Entry) -> BadDataset:
    """The refusal where the file of an entry's index is not there."""
    return BadDataset(f"The index of {entry.summary.tag} is gone; add the dataset again.")


def is_whole(folder: Path, entry: Entry) -> bool:
    """Whether the index is there, and the images that it is of."""
    if not (folder / entry.index).exists():
        return False
    if entry.archive is not None:
        return (folder / entry.archive).exists()
    return is_unchanged(entry)


def is_unchanged(entry: Entry) -> bool:
    """Whether the source is there, and as it was indexed."""
    with contextlib.suppress(ImgclsError):  # a URL that does not answer
        return fingerprint(place(entry.source)) == entry.fingerprint
    return False


def check_unchanged(entry: Entry) -> None:
    """Raises `BadDataset` where what the entry was made of has changed or is gone."""
    if entry.archive is not None:
        return
    mark = fingerprint(place(entry.source))
    if mark is None:
        raise BadDataset(
            f"The data of {entry.summary.tag} is gone from {entry.source}; put it back, or add the "
            "dataset again from where it is now."
        )
    if mark != entry.fingerprint:
        raise BadDataset(
            f"{entry.source} has changed since {entry.summary.tag} was added; add it again, which "
            "makes a new version."
        )
