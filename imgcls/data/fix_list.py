"""The list of fixes: what to change in a dataset, an image a line, for people to review.

A CSV with the columns `path, action, value, reason, confidence`. `drop` leaves the image out,
`relabel` gives it the label (or target) `value`, `move` puts it into the split `value`; `merge`
names a class in `path` and the class that takes its images in `value`. Texts that a spreadsheet
would take for a formula stand behind an apostrophe.
"""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from imgcls.errors import BadArgument

Action = Literal["drop", "relabel", "merge", "move"]
HEADER = ("path", "action", "value", "reason", "confidence")
HASH_BYTES = 20
MAX_BYTES = 128 * 2**20
MAX_PATH, MAX_TEXT = 100_000, 10_000
"""Characters; a CSV is read back with up to 131,072 in a field."""
_FORMULA = re.compile(r"'*(?:[=@\t\r\n]|[+-](?![\d.]+(?:e[+-]?\d+)?$))")
"""How texts begin that a spreadsheet would run (OWASP, "CSV Injection"), numbers left out: names of
files may come from anybody."""


class FixRow(BaseModel):
    """One line of the list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(max_length=MAX_PATH)
    """The image, or of `merge` the class that goes."""
    action: Action
    value: str = Field(default="", max_length=MAX_TEXT)
    """The label, target or split that it gets, or the class that takes its images."""
    reason: str = Field(default="", max_length=MAX_TEXT)
    confidence: float = Field(default=1, ge=0, le=1)


_ROWS = TypeAdapter(list[FixRow])


def to_csv(rows: Iterable[FixRow]) -> str:
    """The list as people review it, in a spreadsheet or an editor."""
    text = io.StringIO(newline="")
    write = csv.writer(text, lineterminator="\n").writerow
    quote = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow
    write(HEADER)
    for row in rows:
        fields = [_guarded(getattr(row, name)) for name in HEADER]
        # Which `csv` leaves as it is, and readers take for the end of a line.
        (quote if any("\r" in str(field) for field in fields) else write)(fields)
    return text.getvalue()


def _guarded(value: str | float) -> str | float:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _plain(text: str) -> str:
    """What `_guarded` was given, or a person has written."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def read_csv(path: Path) -> list[FixRow]:
    """Raises `BadArgument`, naming the line, for what is no list of fixes."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadArgument(f"The list {path} has more than {MAX_BYTES >> 20} MiB.")
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, line) for line in reader if any(line)]
    except OSError as err:
        raise BadArgument(f"The list {path} cannot be read ({err.strerror}).") from err
    except (UnicodeDecodeError, csv.Error) as err:
        raise BadArgument(f"The list {path} is no CSV in UTF-8: {err}.") from err
    header = [name.strip() for name in lines.pop(0)[1]] if lines else []
    if not {"path", "action"} <= set(header) <= set(HEADER) or len(set(header)) != len(header):
        raise BadArgument(
            f"The list {path} needs the header {','.join(HEADER)}, with commas; it has: "
            f"{','.join(header)[:200] or 'nothing'}."
        )
    for number, line in lines:
        if len(line) != len(header):
            raise BadArgument(
                f"Line {number:,} of {path} has {len(line)} values, its header {len(header)}."
            )
    given = [
        {
            name: _plain(value)
            for name, value in zip(header, line, strict=True)
            if value or name == "path"
        }
        for _, line in lines
    ]
    try:
        return _ROWS.validate_python(given)
    except ValidationError as err:
        fault = err.errors(include_url=False)[0]
        row, *field = fault["loc"]
        raise BadArgument(
            f"Line {lines[int(row)][0]:,} of {path}: {'.'.join(map(str, field))}: {fault['msg']}."
        ) from err


def fix_hash(rows: Sequence[FixRow], before: str | None) -> str:
    """BLAKE2b-160, hex, of what a list does, and of the lists applied before it."""
    lines = sorted({f"{row.path}\0{row.action}\0{row.value}" for row in rows})
    data = "\n".join([before or "", *lines]).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=HASH_BYTES).hexdigest()
