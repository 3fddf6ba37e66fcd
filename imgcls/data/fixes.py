"""Fixes: a reviewable list of what to change in a dataset, and the index that comes of it.

A CSV with a line an image: `path, action, value, reason, confidence`. `drop` leaves the image out,
`relabel` gives it the label (or target) `value`, `move` puts it into the split `value`; `merge`
names a class in `path` and the class that takes its images in `value`. No image is changed.
"""

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from imgcls.data.fields import LARGEST
from imgcls.data.labelling import Labelling
from imgcls.data.layout import class_name, split_name
from imgcls.data.where import number
from imgcls.errors import BadArgument, BadDataset

Action = Literal["drop", "relabel", "merge", "move"]
HEADER = ("path", "action", "value", "reason", "confidence")
HASH_BYTES = 20
MAX_BYTES = 128 * 2**20
_Text = Annotated[str, Field(max_length=10_000)]


class FixRow(BaseModel):
    """One line of the list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: _Text
    """The image, or of `merge` the class that goes."""
    action: Action
    value: _Text = ""
    """The label, target or split that it gets, or the class that takes its images."""
    reason: _Text = ""
    confidence: float = Field(default=1, ge=0, le=1)


_ROWS = TypeAdapter(list[FixRow])


def to_csv(rows: Iterable[FixRow]) -> str:
    """The list as people review it, in a spreadsheet or an editor."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows([getattr(row, name) for name in HEADER] for row in rows)
    return text.getvalue()


def read_csv(path: Path) -> list[FixRow]:
    """Raises `BadArgument`, naming the line, for what is no list of fixes."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadArgument(f"The list {path} has more than {MAX_BYTES >> 20} MiB.")
        text = path.read_bytes().decode("utf-8-sig")
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except OSError as err:
        raise BadArgument(f"The list {path} cannot be read ({err.strerror}).") from err
    except (UnicodeDecodeError, csv.Error) as err:
        raise BadArgument(f"The list {path} is no CSV in UTF-8: {err}.") from err
    header = [name.strip() for name in lines[0]] if lines else []
    if not {"path", "action"} <= set(header) <= set(HEADER) or len(set(header)) != len(header):
        raise BadArgument(
            f"The list {path} needs the header {','.join(HEADER)}; it has: "
            f"{','.join(header)[:200] or 'nothing'}."
        )
    short = next((n for n, line in enumerate(lines, 1) if len(line) != len(header)), None)
    if short is not None:
        raise BadArgument(
            f"Line {short:,} of {path} has {len(lines[short - 1])} values, its header "
            f"{len(header)}."
        )
    given = [
        {name: value for name, value in zip(header, line, strict=True) if value or name == "path"}
        for line in lines[1:]
    ]
    try:
        return _ROWS.validate_python(given)
    except ValidationError as err:
        fault = err.errors(include_url=False)[0]
        line, *field = fault["loc"]
        raise BadArgument(
            f"Line {int(line) + 2:,} of {path}: {'.'.join(map(str, field))}: {fault['msg']}."
        ) from err


def fix_hash(rows: Sequence[FixRow], before: str | None) -> str:
    """BLAKE2b-160, hex, of what a list does, and of the lists applied before it."""
    lines = sorted(f"{row.path}\0{row.action}\0{row.value}" for row in rows)
    data = "\n".join([before or "", *lines]).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=HASH_BYTES).hexdigest()


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
    return index.take(pa.array(left, pa.int64()))


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
