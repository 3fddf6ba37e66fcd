"""Diff: what became of the images from one version of a dataset to another.

An image is known again by its content, wherever it lies now, and else by its path. Both sides are
read from their indexes, so that the images of an old version need not be there any more.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import pyarrow as pa

    from imgcls.data.store import DatasetStore
    from imgcls.data.summary import DatasetSummary

LISTED = 1_000
"""Images listed of each kind at most; the counts are of all."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class DiffImage(_Frozen):
    """An image on one side alone."""

    path: str
    label: str | float
    """The target, of a regression."""
    split: str


class Change(_Frozen):
    """An image on both sides."""

    path: str
    """In the new version."""
    was: str | float
    now: str | float


class Images(_Frozen):
    total: int
    images: list[DiffImage]
    """The first 1,000, by path."""


class Changes(_Frozen):
    total: int
    images: list[Change]
    """The first 1,000, by path."""


class DatasetDiff(_Frozen):
    """From `old` to `new`. An image may have changed in several ways, and is then in each."""

    schema_version: int = 1
    old: str
    """Tag."""
    new: str
    """Tag."""
    same: int
    """Images of which nothing has changed."""
    came: Images
    went: Images
    relabelled: Changes
    """Other labels, or targets."""
    moved: Changes
    """Other splits, by the same seed."""
    renamed: Changes
    """The same content at another path."""
    replaced: Changes
    """Another content at the same path; of each its hash (BLAKE2b-160), empty where the bytes
    could not be read."""


class _Row(NamedTuple):
    path: str
    label: str | float
    split: str
    content: str


def diff_versions(store: "DatasetStore", old: str, new: str, *, seed: int = 0) -> DatasetDiff:
    """Compare two stored datasets by tag; `seed` decides the splits that they do not state.

    Raises `DatasetNotFound`, and `BadDataset` where an index is damaged.
    """
    before, after = store.get(old), store.get(new)
    left, right = (_table(store, version, seed) for version in (before, after))
    left, right, same = _without_same(left, right)
    pairs, went, came = _paired(_rows(left), _rows(right))
    return DatasetDiff(
        old=before.tag,
        new=after.tag,
        same=same + sum(was == now for was, now in pairs),
        came=_images(came),
        went=_images(went),
        relabelled=_changes(pairs, "label"),
        moved=_changes(pairs, "split"),
        renamed=_changes(pairs, "path"),
        replaced=_changes(pairs, "content"),
    )


def _table(store: "DatasetStore", version: "DatasetSummary", seed: int) -> "pa.Table":
    """The columns of `_Row`; a path is there once."""
    label = "target" if version.task == "regression" else "label"
    index = store.index(version.tag, seed=seed)
    return index.select(["path", label, "split", "content_hash"]).rename_columns(_Row._fields)


def _without_same(left: "pa.Table", right: "pa.Table") -> "tuple[pa.Table, pa.Table, int]":
    """What is left of both without the rows that they share, and how many those are.

    Most rows are, and what is left becomes Python objects.
    """
    import numpy as np
    import pyarrow.compute as pc

    if left.schema.types != right.schema.types:  # labels on one side, targets on the other
        return left, right, 0
    at = pc.index_in(right["path"], value_set=left["path"])
    there = left.take(at)
    same = np.ones(len(right), bool)
    for name in _Row._fields:
        same &= pc.equal(there[name], right[name]).fill_null(False).to_numpy()
    gone = np.ones(len(left), bool)
    gone[at.filter(same).to_numpy()] = False
    return left.filter(gone), right.filter(~same), int(same.sum())


def _rows(table: "pa.Table") -> set[_Row]:
    columns = zip(*(table[name].to_pylist() for name in _Row._fields), strict=True)
    return {_Row(path, label, split, content or "") for path, label, split, content in columns}


def _paired(
    before: set[_Row], after: set[_Row]
) -> tuple[list[tuple[_Row, _Row]], list[_Row], list[_Row]]:
    """Pairs of what is on both sides, and what is left of each."""
    pairs: list[tuple[_Row, _Row]] = []
    # The surest first: a file that stayed where it was, then one that moved, then a new picture.
    for key in (attrgetter("path", "content"), attrgetter("content"), attrgetter("path")):
        waiting: defaultdict[Any, list[_Row]] = defaultdict(list)
        for row in sorted(before, reverse=True):
            waiting[key(row)].append(row)
        for row in sorted(after):
            found = key(row)
            if found and waiting[found]:
                pairs.append((waiting[found].pop(), row))
        before = before - {old for old, _ in pairs}
        after = after - {new for _, new in pairs}
    return pairs, sorted(before), sorted(after)


def _images(rows: list[_Row]) -> Images:
    listed = [DiffImage(path=r.path, label=r.label, split=r.split) for r in rows[:LISTED]]
    return Images(total=len(rows), images=listed)


def _changes(pairs: Iterable[tuple[_Row, _Row]], field: str) -> Changes:
    def changed() -> Iterator[Change]:
        for old, new in pairs:
            was, now = getattr(old, field), getattr(new, field)
            if was != now:
                yield Change(path=new.path, was=was, now=now)

    found = sorted(changed(), key=lambda change: change.path)
    return Changes(total=len(found), images=found[:LISTED])
