"""Adding: the steps of `DatasetStore.add` from a source to an index on disk and its summary."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from imgcls.data.entries import Kind
from imgcls.data.imagefolder import read_metadata
from imgcls.data.index import class_names, with_splits, write_index
from imgcls.data.journal import Journal
from imgcls.data.labelling import FOLDERS, Labelling
from imgcls.data.layout import SPLITS
from imgcls.data.pattern import Pattern
from imgcls.data.scan import Progress
from imgcls.data.source import Source, fingerprint
from imgcls.data.summary import DatasetSummary
from imgcls.data.tables import Table
from imgcls.data.url_reader import open_reader
from imgcls.errors import DISK_FULL, BadArgument, BadDataset

_LOOK = 2.0
"""Seconds after which a pass looks whether its archive is still the same."""


def resolved(labelling: Labelling, table: Table | None) -> Labelling:
    """With the table's hash, and with what its columns or the pattern's fields say."""
    if table is not None:
        if labelling.pattern is not None:
            raise BadArgument("Give either a pattern or a table; both name the fields of images.")
        return labelling.model_copy(update={"table": table.hash}).resolved(table.fields)
    if labelling.pattern is None:
        return labelling  # the data may hold metadata
    return labelling.resolved(Pattern(labelling.pattern).fields)


def with_metadata(labelling: Labelling, source: Source) -> tuple[Labelling, Table | None]:
    """With the metadata beside the images, where that says labels, targets or what is asked for."""
    if len(source.listing.metadata):
        with open_reader(source.kind, source.data) as reader:
            table = read_metadata(reader, source.listing.metadata)
        if table is not None and (labelling != FOLDERS or {"label", "target"} & set(table.fields)):
            return resolved(labelling, table), table
    return labelling.resolved(()), None


def summarized(
    tag: str, kind: Kind, index: pa.Table, ignored: int, seed: int, labelling: Labelling
) -> tuple[DatasetSummary, pa.Table]:
    """The summary, and the index with the splits that it counts. Raises `BadDataset`."""
    labels = class_names(index, labelling)
    index = with_splits(index, labels, seed)
    splits = index["split"].filter(pc.is_null(index["error"]))
    groups = index["group"].drop_null().unique().to_pylist()
    summary = DatasetSummary(
        tag=tag,
        labels=labels,
        images=len(splits),
        unreadable=len(index) - len(splits),
        ignored=ignored,
        splits={split: pc.sum(pc.equal(splits, split)).as_py() for split in SPLITS},
        bytes=pc.sum(index["bytes"]).as_py(),
        created_at=datetime.now(UTC),
        source=kind,
        task=labelling.task,
        labelling=labelling,
        groups=sorted(groups),
    )
    return summary, index


def write(index: pa.Table, path: Path, journal: Journal) -> None:
    """`write_index`; on a full disk in the room of the journal, which is larger."""
    try:
        write_index(index, path)
    except OSError as err:
        if err.errno not in DISK_FULL:
            raise
        path.unlink(missing_ok=True)
        journal.remove()
        write_index(index, path)


def check_same(source: Source, journal: Journal) -> None:
    """Raises `BadDataset` where the source is another one by now; the journal is then of no use."""
    mark = fingerprint(source.path)
    if mark is None:
        raise BadDataset(f"{source.path} was taken away while it was read; put it back.")
    if mark != source.fingerprint:
        journal.remove()
        raise BadDataset(f"{source.path} changed while it was read; add it again.")


def watch(source: Source, journal: Journal, progress: Progress | None) -> Progress:
    """`progress`, which also ends a pass over an archive soon after that has changed."""
    archive = isinstance(source.path, Path) and source.kind != "folder"
    last = time.monotonic()

    def told(done: int, total: int) -> None:
        nonlocal last
        if archive and time.monotonic() - last > _LOOK:
            check_same(source, journal)
            last = time.monotonic()
        if progress is not None:
            progress(done, total)

    return told
