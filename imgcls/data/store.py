"""DatasetStore: datasets kept as an index, with their archive or a reference to where it is.

What it keeps stands on a shelf, see `shelf.py`; this is how it gets there, and how it is opened.
"""

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from imgcls.data.adding import check_same, resolved, summarized, watch, with_metadata, write
from imgcls.data.children import Children
from imgcls.data.dataset import Dataset
from imgcls.data.fix_list import FixRow, fix_hash, read_csv, to_csv
from imgcls.data.fixes import apply_fixes
from imgcls.data.index import (
    content_version,
    located,
    read_index,
    with_splits,
    write_index,
)
from imgcls.data.journal import Journal
from imgcls.data.labelling import FOLDERS, Labelling
from imgcls.data.scan import Progress, Scanner, scan
from imgcls.data.shelf import Shelf, check_unchanged, is_unchanged, link, lost
from imgcls.data.source import index_source, open_source
from imgcls.data.summary import (
    FIXES_FILE,
    DatasetSummary,
    Entry,
    slug,
    stem,
)
from imgcls.data.tables import read_table
from imgcls.data.twins import find_twins, with_twins
from imgcls.data.urls import Place, place
from imgcls.errors import BadArgument, BadDataset
from imgcls.files import locked, scratch, sweep
from imgcls.settings import get_settings


@dataclass(frozen=True, slots=True)
class Added:
    folder: Path
    entry: Entry
    index: pa.Table | None = None
    """With its splits, where it was made just now."""


class DatasetStore:
    """An empty store is the normal first state. Several processes may use one store."""

    def __init__(self, home: Path | None = None) -> None:
        self.root = (home or get_settings().home) / "datasets"
        self._shelf = Shelf(self.root)

    def add(
        self,
        path: Place,
        *,
        name: str | None = None,
        move: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
        labelling: Labelling = FOLDERS,
        table: Path | None = None,
        scanner: Scanner = scan,
    ) -> DatasetSummary:
        """Index a folder or an archive, here or behind a URL, and keep the index.

        The data stays where it is and must remain there; `move=True` (uploads) moves an archive
        into the store, once all went well. A compressed tar is unpacked into the store either way.
        Where the same unchanged path is in the store under that name, nothing is read again; the
        same content from elsewhere is the dataset that is there, read from where it was.
        `labelling` says where labels or targets come from, and `table` is the file of a table.
        `progress` is called with (images done, images in all); what it raises ends the work.
        `scanner` measures the images, elsewhere than on this machine say.

        Raises `BadDataset`, `BadArchive`, and `BadArgument` for a folder that is to be moved or a
        labelling that does not fit.
        """
        added = self.add_entry(path, name, move, seed, progress, labelling, table, scanner)
        return added.entry.summary

    def list(self) -> list[DatasetSummary]:
        """All datasets, newest first. Never raises: what cannot be read is left out."""
        return self._shelf.summaries()

    def get(self, tag: str) -> DatasetSummary:
        """By `name:version`, or the latest by `name`. Raises `DatasetNotFound`, `BadDataset`."""
        return self._shelf.entry(tag)[1].summary

    def open(self, tag: str, *, seed: int = 0, group: str | None = None) -> Dataset:
        """All of a dataset, or one of its groups.

        Raises `DatasetNotFound`, `BadDataset` where the data has changed or is gone, `BadArgument`
        for a group that is not there.
        """
        folder, entry = self._shelf.entry(tag)
        check_unchanged(entry)
        with contextlib.suppress(FileNotFoundError):
            return open_entry(folder, entry, seed, group)
        # Replaced between the two reads: what is there now is whole.
        folder, entry = self._shelf.entry(tag)
        check_unchanged(entry)
        try:
            return open_entry(folder, entry, seed, group)
        except FileNotFoundError as err:
            raise lost(entry) from err

    def folder(self, tag: str) -> Path:
        """Where a dataset is kept, by its whole tag; it may be gone."""
        return self.root / tag.replace(":", "/")

    def source(self, tag: str) -> str | None:
        """The folder, archive or URL that a dataset's images are read from; None where they lie in
        the store. Raises `DatasetNotFound`, `BadDataset`."""
        entry = self._shelf.entry(tag)[1]
        return None if entry.archive else entry.source

    def index(self, tag: str, *, seed: int = 0) -> pa.Table:
        """The index with its splits, also where the images have changed or are gone.

        Raises `DatasetNotFound`, `BadDataset`.
        """
        folder, entry = self._shelf.entry(tag)
        try:
            index = read_index(folder / entry.index)
        except FileNotFoundError:
            # Replaced between the two reads: what is there now is whole.
            folder, entry = self._shelf.entry(tag)
            try:
                index = read_index(folder / entry.index)
            except FileNotFoundError as err:
                raise lost(entry) from err
        return with_splits(index, entry.summary.labels, seed)

    def remove(self, tag: str) -> str:
        """Delete a dataset, and return its whole tag.

        Images that the store owns (uploads) go with it; what lies elsewhere stays. Who has it open
        can read on. Raises `DatasetNotFound`, `BadDataset` where it is damaged, and `DatasetInUse`
        where another dataset reads its images; jobs are for the caller to ask (`Jobs.without`).
        """
        return self._shelf.remove(tag)

    def add_entry(
        self,
        path: Place,
        name: str | None,
        move: bool,
        seed: int,
        progress: Progress | None,
        labelling: Labelling = FOLDERS,
        table: Path | None = None,
        scanner: Scanner = scan,
    ) -> Added:
        """`add`, and what it took to know that."""
        path = place(path)
        if not path.exists():
            raise BadDataset(f"There is no file or folder {path}; check the path.")
        if move and path.is_dir():
            raise BadArgument("Only an archive can be moved into the store; pack the folder first.")
        name = slug(name or stem(path))
        # A table that comes with an upload comes from outside.
        rows = None if table is None else read_table(table, csv_only=move)
        asked = labelling = resolved(labelling, rows)
        if not move and (known := self._shelf.known(path, name, asked)) is not None:
            return Added(*known)
        sweep(self.root, ".pass-")
        with scratch(self.root, ".tmp-") as work, Children() as children:
            unique = uuid4().hex[:12]
            expect = None
            if scanner is scan:
                expect, scanner = children.expect, partial(scan, children=children)
            source = open_source(path, work / f"archive-{unique}.tar", expect)
            if rows is None and asked.pattern is None:
                labelling, rows = with_metadata(asked, source)
            journal = Journal(self.root / f".pass-{source.key}")
            if not move:
                scanner = partial(scanner, journal=journal)
            progress = watch(source, journal, progress)
            index, ignored = index_source(source, progress, labelling, rows, scanner)
            kept = f"index-{unique}.parquet"
            with ThreadPoolExecutor(1) as pool:
                version = pool.submit(content_version, index, labelling)
                index = with_twins(index, find_twins(index))
                written = pool.submit(write, index, work / kept, journal)
                tag = f"{name}:{version.result()}"
                summary, index = summarized(tag, source.kind, index, ignored, seed, labelling)
                written.result()
            archive = f"archive-{unique}.{source.kind}" if move else None
            entry = Entry(
                summary=summary,
                source=str(path),
                fingerprint=source.fingerprint,
                index=kept,
                archive=archive if source.data == path else source.data.name,
                moved=move,
                asked=None if labelling == asked else asked,
            )
            with locked(self.root / ".lock"):  # one process publishes at a time
                check_same(source, journal)
                entry = self._shelf.dated(entry)
                if first := self._shelf.keep_first(entry):
                    added = Added(*first)
                else:
                    added = Added(self._shelf.publish(entry, work, source.data), entry, index)
                if entry.archive is None:
                    self._refresh_fixed(entry, index, work)
            journal.remove()
            if move:
                Path(entry.source).unlink(missing_ok=True)
            return added

    def add_fixed(self, tag: str, rows: Sequence[FixRow], *, seed: int = 0) -> DatasetSummary:
        """A new version of a stored dataset: the same images, the index mended by a list of fixes.

        The list is kept beside the index. `seed` is that of the splits which the summary counts.
        Raises `DatasetNotFound`, `BadDataset`, and `BadArgument` for a list that does not fit.
        """
        with scratch(self.root, ".tmp-") as work, locked(self.root / ".lock"):
            folder, before = self._shelf.entry(tag)
            check_unchanged(before)
            try:
                index = read_index(folder / before.index)
            except FileNotFoundError as err:
                raise lost(before) from err
            was = before.summary
            index = apply_fixes(index, was.labelling, rows)
            mark = {"fix": fix_hash(rows, was.labelling.fix)}
            labelling = was.labelling.model_copy(update=mark)
            name, unique = was.tag.partition(":")[0], uuid4().hex[:12]
            fixed = f"{name}:{content_version(index, labelling)}"
            summary, index = summarized(fixed, was.source, index, was.ignored, seed, labelling)
            archive = None
            if before.archive is not None:
                archive = f"archive-{unique}.{was.source}"
                link(folder / before.archive, work / archive)
            entry = before.model_copy(
                update={
                    "summary": summary,
                    "index": f"index-{unique}.parquet",
                    "archive": archive,
                    "fixed": was.tag,
                }
            )
            write_index(index, work / entry.index)
            (work / FIXES_FILE).write_text(to_csv(rows), encoding="utf-8")
            self._shelf.publish(entry, work, work / (archive or ""))
            return summary

    def _refresh_fixed(self, entry: Entry, index: pa.Table, work: Path) -> None:
        """Let versions fixed from this one, whose source has changed otherwise, read it again."""
        for folder, fixed in self._shelf.fixed_from(entry.summary.tag):
            if fixed.archive is not None or is_unchanged(fixed):
                continue
            with contextlib.suppress(FileNotFoundError, BadDataset):
                name = f"index-{uuid4().hex[:12]}.parquet"
                write_index(located(read_index(folder / fixed.index), index), work / name)
                summary = fixed.summary.model_copy(update={"source": entry.summary.source})
                same = {"source": entry.source, "fingerprint": entry.fingerprint, "moved": False}
                changes = same | {"index": name, "summary": summary}
                self._shelf.publish(fixed.model_copy(update=changes), work, work)

    def fixes(self, tag: str) -> tuple[str, Sequence[FixRow]] | None:
        """The version that a fixed one was made of, and the list; None of any other.

        Raises `DatasetNotFound`, `BadDataset`, and `BadArgument` where the list is damaged.
        """
        folder, entry = self._shelf.entry(tag)
        return None if entry.fixed is None else (entry.fixed, read_csv(folder / FIXES_FILE))


def open_entry(
    folder: Path,
    entry: Entry,
    seed: int,
    group: str | None = None,
    index: pa.Table | None = None,
) -> Dataset:
    """Without asking whether the source is unchanged; `index` with its splits, where it is known.

    Raises `FileNotFoundError`, `BadDataset`.
    """
    if index is None:
        index = with_splits(read_index(folder / entry.index), entry.summary.labels, seed)
    data = folder / entry.archive if entry.archive else place(entry.source)
    summary = entry.summary
    return Dataset(
        summary.tag, summary.labels, index, summary.source, data, seed, summary.labelling, group
    )
