"""Tables: the fields of images in a CSV or Parquet file, a row an image.

The column `path` names the image inside the folder or archive; every other column is a field.
"""

import csv
import hashlib
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgcls.data.measure import HASH_BYTES
from imgcls.data.pattern import FIELD
from imgcls.errors import BadDataset
from imgcls.settings import get_settings

Lines = tuple[list[str], Iterator[list[str]]]
"""Names of the columns, and the values of each row."""
SUFFIXES = (".csv", ".parquet")
MAX_BYTES = 128 * 2**20
_MAX_COLUMNS = 200
_PATH = "path"


@dataclass(frozen=True, slots=True)
class Table:
    """All values are texts, as long as nobody asks for a number."""

    hash: str
    """BLAKE2b-160 of the file's bytes, hex."""
    fields: tuple[str, ...]
    """Names of the columns but `path`."""
    rows: dict[str, dict[str, str]]
    """By path, `/` between folders."""

    def records(self, names: list[str]) -> list[dict[str, str] | None]:
        """The row of each named image, None for images that the table does not hold.

        The table's paths may begin below folders that hold everything. Raises `BadDataset` where
        the table names an image that is not there.
        """
        for depth in range(common_depth(names) + 1):
            below = ["/".join(name.split("/")[depth:]) for name in names]
            there = set(below)
            if self.rows.keys() <= there:
                return [self.rows.get(name) for name in below]
        missing = [path for path in self.rows if path not in set(names)]
        raise BadDataset(
            f"{len(missing):,} of {len(self.rows):,} images of the table are not in the data, "
            f"{missing[0][:200]!r} is one; the column `path` must say where an image lies, for "
            f"example {names[0][:200]!r}."
        )


def read_table(path: Path, *, csv_only: bool = False) -> Table:
    """Raises `BadDataset` for what is no table of images.

    `csv_only` is for tables from outside: a small Parquet file can unpack to any size.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BadDataset(f"The table has {size >> 20:,} MiB; at most {MAX_BYTES >> 20} may be.")
        data = path.read_bytes()
    except OSError as err:
        raise BadDataset(
            f"The table {path} cannot be read ({err.strerror}); check that it exists."
        ) from err
    if data[:4] == b"PAR1":
        if csv_only:
            raise BadDataset("A table is sent as CSV; Parquet is for the command line alone.")
        header, lines = _parquet(data)
    else:
        header, lines = csv_lines(data)
    rows = to_rows(header, lines)
    if not rows:
        raise BadDataset("The table has no rows.")
    fields = tuple(name for name in header if name != _PATH and FIELD.fullmatch(name))
    return Table(hashlib.blake2b(data, digest_size=HASH_BYTES).hexdigest(), fields, rows)


def to_rows(
    header: list[str],
    lines: Iterator[list[str]],
    *,
    column: str = _PATH,
    folder: str = "",
    known: Collection[str] = (),
) -> dict[str, dict[str, str]]:
    """The fields of each image, by its path: what stands in `column`, seen from `folder`.

    Raises `BadDataset` where the header is none, and for paths that are named twice or are `known`.
    """
    if column not in header or len(set(header)) != len(header) or len(header) > _MAX_COLUMNS:
        raise BadDataset(
            f"The table needs a header with a column `{column}`, and each column once "
            f"(at most {_MAX_COLUMNS}), with commas between them; it has: "
            f"{', '.join(header)[:300]}."
        )
    rows: dict[str, dict[str, str]] = {}
    most = get_settings().max_archive_files - len(known)
    at = header.index(column)
    left = [name == column or not FIELD.fullmatch(name) for name in header]
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise BadDataset(
                f"Line {number:,} of the table has {len(line)} values, its header {len(header)}."
            )
        name = line[at].replace("\\", "/").removeprefix("./")
        name = f"{folder}/{name}" if folder else name
        if name in rows or name in known:
            raise BadDataset(f"The table names {name[:200]!r} twice.")
        if len(rows) >= most:
            raise BadDataset(f"The table has more than {most:,} rows; split it.")
        rows[name] = {
            key: value for key, value, out in zip(header, line, left, strict=True) if not out
        }
    return rows


def csv_lines(data: bytes) -> Lines:
    """Header and lines. `BadDataset` is raised while they are read."""
    lines = _csv_lines(data)
    header = [name.strip() for name in next(lines, [])]
    return header, lines


def _csv_lines(data: bytes) -> Iterator[list[str]]:
    try:
        text = io.StringIO(data.decode("utf-8-sig"), newline="")
        yield from filter(None, csv.reader(text, strict=True))
    except (UnicodeDecodeError, csv.Error) as err:
        raise BadDataset(
            f"The table is neither CSV in UTF-8 nor Parquet: {err}; save it as one of them."
        ) from err


def _parquet(data: bytes) -> Lines:
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (OSError, pa.ArrowException) as err:
        raise BadDataset(f"The Parquet table cannot be read: {err}") from err
    texts = zip(table.column_names, map(_texts, table.columns), strict=True)
    named = [(name, column) for name, column in texts if column is not None]
    lines = zip(*(column for _, column in named), strict=True)
    return [name for name, _ in named], (list(line) for line in lines)


def _texts(column: pa.ChunkedArray) -> list[str] | None:
    """The values of a column; None where they are no texts, such as the bytes of an image."""
    if pa.types.is_nested(column.type):
        return None
    try:
        texts: list[str] = pc.fill_null(pc.cast(column, pa.string()), "").to_pylist()
    except pa.ArrowException:
        return None
    return texts


def common_depth(names: list[str]) -> int:
    """How many folders all names begin with."""
    heads = [name.split("/")[:-1] for name in (min(names), max(names))]
    depth = 0
    for one, other in zip(*heads, strict=False):
        if one != other:
            break
        depth += 1
    return depth
