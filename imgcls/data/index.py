"""Index: what one pass over a dataset found, as an Arrow table kept in Parquet.

A row an image file, in path order. Splits that depend on a seed are not stored: `with_splits`
adds them when the dataset is opened.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgcls.data.columns import Ints, codes, encoded, positions
from imgcls.data.entries import Entries
from imgcls.data.labelling import FOLDERS, Labelling
from imgcls.data.layout import SPLITS, Layout
from imgcls.data.measure import Measures
from imgcls.data.pixelwise import CELLS
from imgcls.data.splits import assign_splits, without_scenes
from imgcls.errors import BadDataset, out_of_reach
from imgcls.images import FORMATS, Pixels

# Arrow's own pool asks for memory and gives it back all the time: a third of `build_index`.
pa.set_memory_pool(pa.system_memory_pool())

SCHEMA_VERSION = 1
_VERSION_KEY = b"schema_version"
_LINES = 1 << 14
"""Of the text of a version, that are put together at once."""
_ROWS = 1 << 16
"""Of a row group: what is encoded at once when an index is written."""
_BIN, _BINS = 20, 10
"""Images that a bin of targets needs at least, and bins there are at most."""
_ADDED = [
    pa.field("target", pa.float64()),
    pa.field("weight", pa.float64()),
    pa.field("group", pa.string()),
    pa.field("blur", pa.float32()),
    pa.field("cells", pa.binary(CELLS)),
    pa.field("twins", pa.string()),
]
"""What indexes of before have not got: fields of names or of a table, sharpness, the picture in
grey cells, and one content hash for all pictures that look the same."""

PLACE = [
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("packed", pa.int64(), nullable=False),
    pa.field("size", pa.int64(), nullable=False),
    pa.field("method", pa.int64(), nullable=False),
    pa.field("crc", pa.int64(), nullable=False),
    pa.field("location", pa.binary()),
]
"""Where the bytes lie; `reader.py` knows the meaning."""
_REPEATED = ["label", "given_split", "format", "width", "height", "error", "group", "twins"]
"""Columns with few values: of others a dictionary takes time and saves nothing."""
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("given_split", pa.string()),
        pa.field("format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("content_hash", pa.string()),
        pa.field("phash", pa.uint64()),
        *(pa.field(f"sum_{channel}", pa.uint64()) for channel in "rgb"),
        *(pa.field(f"sumsq_{channel}", pa.uint64()) for channel in "rgb"),
        pa.field("error", pa.string()),
        *PLACE,
        *_ADDED,
    ],
    metadata={_VERSION_KEY: str(SCHEMA_VERSION).encode()},
)
"""Null in the measured columns means that `error` is set. Sides are those of the upright image,
in pixels; sums run over all of its pixels, channel values 0 to 255."""


def build_index(layout: Layout, entries: Entries, found: Measures) -> pa.Table:
    """The table of `SCHEMA`, without twins yet. `entries` and `found` are the layout's rows, in its
    order."""
    bad = np.zeros(len(found), bool)
    bad[list(found.error)] = True
    order = pc.sort_indices(pa.array(layout.paths, pa.string()))
    columns = (_column(field, layout, entries, found, bad) for field in SCHEMA)
    if not _ascends(order):  # one by one: both orders of all of them would be most of the memory
        columns = (column.take(order) for column in columns)
    return pa.table(list(columns), schema=SCHEMA)


def _ascends(order: pa.Array) -> bool:
    """Whether it leaves everything where it is."""
    return np.array_equal(order.to_numpy(), np.arange(len(order)))


def _column(
    field: pa.Field, layout: Layout, entries: Entries, found: Measures, bad: npt.NDArray[np.bool_]
) -> pa.Array:
    """One of `SCHEMA`, in the order of the layout; none of twins yet."""
    name, values = field.name, None
    match name:
        case "format":
            return _named(found.format)
        case "content_hash":
            return _hex(found.content_hash)
        case "error":
            return _sparse(found.error, len(bad))
        case "blur":
            return pa.array(found.blur, field.type, mask=bad)
        case "cells":
            return _binary(found.cells, bad)
        case "path" | "label" | "target" | "weight" | "group":
            values = getattr(layout, f"{name}s")
        case "given_split":
            values = layout.given
        case "offset" | "bytes":
            values = found.column(name)
        case "packed" | "size" | "method" | "crc":
            values = getattr(entries, name)
        case "location":
            values = entries.locations
        case "twins":
            pass
        case _:
            numbers = found.column(name)
            unsigned = field.type == pa.uint64()
            numbers = numbers.view(np.uint64) if unsigned else numbers.astype(np.int32)
            return pa.array(numbers, field.type, mask=bad)
    return pa.nulls(len(bad), field.type) if values is None else pa.array(values, field.type)


def _binary(rows: npt.NDArray[np.uint8], null: npt.NDArray[np.bool_]) -> pa.Array:
    """Bytes `[n, k]` as a column."""
    valid = pa.array(~null).buffers()[1]
    buffers = [valid, pa.py_buffer(rows.tobytes())]
    return pa.Array.from_buffers(pa.binary(rows.shape[1]), len(rows), buffers)


def _named(codes: Pixels) -> pa.Array:
    """Format names; null for 0."""
    names = pa.array([None, *FORMATS], pa.string())
    return names.take(pa.array(codes, pa.uint8()))


def _hex(hashes: Pixels) -> pa.Array:
    """Hashes `uint8 [n, 20]` as text; null where there are only zeros."""
    width = 2 * hashes.shape[1]
    offsets = np.arange(len(hashes) + 1, dtype=np.int32) * width
    text = hashes.tobytes().hex().encode()
    known = np.packbits(hashes.any(axis=1), bitorder="little")
    buffers = [pa.py_buffer(known), pa.py_buffer(offsets), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(hashes), buffers)


def _sparse(texts: dict[int, str], count: int) -> pa.Array:
    """The texts at their places, nulls elsewhere."""
    at = np.full(count, -1, np.int64)
    at[list(texts)] = np.arange(len(texts))
    return pa.array(list(texts.values()), pa.string()).take(pa.array(at, mask=at < 0))


def content_version(index: pa.Table, labelling: Labelling) -> str:
    """First 12 hex digits of the BLAKE2b of all (path, label, given split, content hash), and of
    the labelling where it is not that by folders."""
    columns = (index[name] for name in ("path", "label", "given_split", "content_hash"))
    missing = {"null_handling": "replace", "null_replacement": ""}
    joined = pc.binary_join_element_wise(*columns, "\0", **missing)
    order = pc.sort_indices(joined)
    lines = (joined if _ascends(order) else joined.take(order)).combine_chunks()
    mark, between = hashlib.blake2b(digest_size=20), b""
    for start in range(0, len(lines), _LINES):
        some = lines.slice(start, _LINES)
        text = pc.binary_join(pa.ListArray.from_arrays([0, len(some)], some), "\n")
        mark.update(between)
        mark.update(text[0].as_buffer())
        between = b"\n"
    if labelling != FOLDERS:
        # Versions of before there were fixes stay what they were.
        left_out = {"fix"} if labelling.fix is None else None
        mark.update(between + labelling.model_dump_json(exclude=left_out).encode("utf-8"))
    return mark.hexdigest()[:12]


def class_names(index: pa.Table, labelling: Labelling) -> list[str]:
    """Sorted labels that have a readable image; none for a regression.

    Raises `BadDataset` where there are not two, and without a readable image.
    """
    readable = index.filter(index["error"].is_null())
    labels = sorted(set(readable["label"].unique().to_pylist()))
    bad = len(index) - len(readable)
    why = ""
    if bad:
        first = index["error"].drop_null()[0].as_py()
        why = f" {bad:,} of {len(index):,} images cannot be read, the first one because: {first}"
    if not len(readable):
        raise BadDataset(f"There is no image that can be read.{why}")
    if labelling.target is not None:
        return []
    if len(labels) < 2:
        raise BadDataset(
            f"Two classes are needed, and images that can be read were found for {len(labels)}"
            f"{''.join(f' ({label})' for label in labels)}.{why}"
        )
    return labels


def with_splits(index: pa.Table, labels: Sequence[str], seed: int) -> pa.Table:
    """The index with a `split` column behind `label`, in place of the given splits."""
    classes = positions(index["label"], labels) if labels else None
    strata = _strata(index, classes)
    given = positions(index["given_split"], SPLITS)
    content, hashes = encoded(index["content_hash"])
    content[index["error"].is_valid().to_numpy()] = -1
    twin = positions(index["twins"], hashes)
    picture = np.where((content < 0) | (twin < 0), content, twin)
    picture = without_scenes(
        picture, content, np.zeros_like(content) if classes is None else classes
    )
    assigned = assign_splits(strata, given, picture, hashes.to_pylist(), seed)
    column = pa.array(SPLITS, pa.string()).take(pa.array(assigned))
    return index.add_column(2, pa.field("split", pa.string(), nullable=False), column)


def _strata(index: pa.Table, classes: Ints | None) -> Ints:
    """Codes of what every split should have its share of: classes, or where there are none bins of
    the target with about equally many images; in each group."""
    groups = np.maximum(codes(index["group"]), 0)
    strata = classes
    if strata is None:
        targets = index["target"].to_numpy()
        bins = int(np.clip(len(targets) // (_BIN * (groups.max() + 1)), 1, _BINS))
        edges = np.quantile(targets, np.linspace(0, 1, bins + 1)[1:-1])
        strata = np.searchsorted(edges, targets, side="right").astype(np.int64)
    return np.where(strata < 0, -1, strata + (strata.max() + 1) * groups)


def located(index: pa.Table, other: pa.Table) -> pa.Table:
    """The index with the places of the bytes from another one, which holds all of its paths."""
    at = pc.index_in(index["path"], value_set=other["path"])
    for field in PLACE:
        column = index.schema.get_field_index(field.name)
        index = index.set_column(column, field, other[field.name].take(at))
    return index


def write_index(index: pa.Table, path: Path) -> None:
    """As Parquet without splits, flushed to disk; the caller publishes it by its own marker."""
    index = index.select(SCHEMA.names)
    with path.open("xb") as file:
        pq.write_table(
            index,
            file,
            compression="zstd",
            row_group_size=_ROWS,
            use_dictionary=_REPEATED,
            write_statistics=False,
            write_page_checksum=True,
        )
        file.flush()
        os.fsync(file.fileno())


def read_index(path: Path) -> pa.Table:
    """Raises `FileNotFoundError`, `BadDataset` where it cannot be understood or is not allowed to
    be read, `StorageUnavailable`."""
    try:
        table = pq.read_table(path, memory_map=True, page_checksum_verification=True)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as err:
        if isinstance(err, OSError) and err.errno is not None:  # Arrow's own have none
            raise out_of_reach(path, err) from err
        raise BadDataset(f"The index {path} is damaged; add the dataset again.") from err
    version = (table.schema.metadata or {}).get(_VERSION_KEY)
    for field in _ADDED:
        if field.name not in table.schema.names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    if version != str(SCHEMA_VERSION).encode() or set(table.schema.names) != set(SCHEMA.names):
        raise BadDataset(f"The index {path} is of another version; add the dataset again.")
    return table.select(SCHEMA.names)
