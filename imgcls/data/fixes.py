"""Fixes: the index that comes of a reviewed list (`fix_list.py`). No image is changed."""

import math
from collections.abc import Sequence
from itertools import compress

import pyarrow as pa

from imgcls.data.fields import LARGEST
from imgcls.data.fix_list import FixRow
from imgcls.data.labelling import Labelling
from imgcls.data.layout import class_name, split_name
from imgcls.data.where import number
from imgcls.errors import BadArgument, BadDataset


def apply_fixes(index: pa.Table, labelling: Labelling, rows: Sequence[FixRow]) -> pa.Table:
    """The index with the list applied: images first, then classes merged.

    An image may be relabelled and moved; one that is dropped is gone, whatever else is said.
    Raises `BadArgument` for a line that does not fit the dataset, and where nothing is said.
    """
    if not rows:
        raise BadArgument("The list holds no fixes.")
    at = {path: row for row, path in enumerate(index["path"].to_pylist())}
    labels = index["label"].to_pylist()
    targets = index["target"].to_pylist()
    given = index["given_split"].to_pylist()
    readable = index["error"].is_null().to_pylist()
    stated = set(compress(given, readable))
    merges = _merges(labels, labelling, [row for row in rows if row.action == "merge"])
    dropped = set()
    said: dict[tuple[int, str], str] = {}
    for row in rows:
        if row.action == "merge":
            continue
        place = at.get(row.path)
        if place is None:
            raise BadArgument(
                f"The list names {row.path[:200]!r}, which the dataset does not hold."
            )
        if row.action == "drop":
            dropped.add(place)
            continue
        if said.setdefault((place, row.action), row.value) != row.value:
            raise BadArgument(f"The list gives {row.path[:200]!r} two values to {row.action} to.")
        if row.action == "move":
            given[place] = _split(row, given)
        elif labelling.task == "regression":
            targets[place] = _target(row)
        else:
            labels[place] = _label(row)
    columns = {
        "label": [merges.get(label, label) for label in labels],
        "target": targets,
        "given_split": given,
    }
    for name, values in columns.items():
        place = index.schema.get_field_index(name)
        index = index.set_column(place, index.field(name), pa.array(values, index.field(name).type))
    left = [row for row in range(len(index)) if row not in dropped]
    if not left:
        raise BadArgument("The list drops every image.")
    _check_splits(stated, {given[row] for row in left if readable[row]})
    return index.take(pa.array(left, pa.int64()))


def _check_splits(before: set[str | None], after: set[str | None]) -> None:
    """No stated split may be without images that can be read; what None states is drawn."""
    gone = {split for split in before - after if split is not None}
    if before and not after & {"train", None}:
        gone.add("train")
    if gone:
        raise BadArgument(
            f"The list leaves no image that can be read in the split {min(gone)!r}; keep some of "
            "them there."
        )


def _merges(labels: list[str], labelling: Labelling, rows: Sequence[FixRow]) -> dict[str, str]:
    """By class that goes, the class that takes its images in the end."""
    there = set(labels)
    into: dict[str, str] = {}
    for row in rows:
        if labelling.task == "regression" or row.path not in there:
            raise BadArgument(f"There is no class {row.path[:200]!r} to merge.")
        if into.setdefault(row.path, _label(row)) != _label(row):
            raise BadArgument(f"The list merges {row.path[:200]!r} into two classes.")
    found = {}
    for start in into:
        seen, end = {start}, into[start]
        while end in into:
            if end in seen:
                raise BadArgument(f"The list merges {start[:200]!r} in a circle.")
            seen.add(end)
            end = into[end]
        found[start] = end
    return found


def _label(row: FixRow) -> str:
    try:
        return class_name(row.value)
    except BadDataset as err:
        raise BadArgument(f"{row.path[:200]!r} cannot be labelled so: {err.message}") from err


def _target(row: FixRow) -> float:
    value = number(row.value)
    if value is None or not math.isfinite(value) or abs(value) > LARGEST:
        raise BadArgument(f"{row.path[:200]!r}: {row.value[:60]!r} is no number to relabel it to.")
    return value


def _split(row: FixRow, given: list[str | None]) -> str:
    split = split_name(row.value)
    if split is None or split not in given:
        raise BadArgument(
            f"{row.path[:200]!r} cannot be moved to {row.value[:60]!r}: only splits that the "
            "dataset states itself can take images; the others are drawn."
        )
    return split
