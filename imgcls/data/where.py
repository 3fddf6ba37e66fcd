"""Where: a filter over the fields of images, such as `votes >= 5 and gender == m`.

Comparisons joined by `and`, and nothing else: a filter from outside is read, never evaluated.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from imgcls.data.pattern import FIELD
from imgcls.errors import BadArgument, BadDataset

_NUMBER = re.compile(r"[+-]?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?")
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)
_SPLIT = re.compile(rf"({FIELD.pattern}) ?(>=|<=|==|!=|=|>|<) ?([^=].*)")
_MORE = re.compile(r" or( |$)|[&|,<>=!]", re.IGNORECASE)
"""In a value without quotes: more than one comparison was meant, or another sign."""
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_EQUALITY = ("==", "=", "!=")
_MAX_TEXT, _MAX_CONDITIONS = 500, 16
_HELP = "Write it like `votes>=5 and gender==m`."


def number(text: str) -> float | None:
    """A decimal number as people write it into names and tables; None for everything else."""
    found = float(text) if _NUMBER.fullmatch(text) else math.inf
    return found if math.isfinite(found) else None


class Where:
    """Whether an image, by its fields, belongs to a dataset."""

    def __init__(self, text: str) -> None:
        """Raises `BadArgument` where `text` is no filter."""
        if len(text) > _MAX_TEXT or not text.isprintable():
            raise BadArgument(f"A filter has at most {_MAX_TEXT} printable characters. {_HELP}")
        # Single spaces leave the expressions nothing to try twice.
        parts = _AND.split(" ".join(text.split()))
        if len(parts) > _MAX_CONDITIONS:
            raise BadArgument(f"A filter has at most {_MAX_CONDITIONS} comparisons. {_HELP}")
        self._conditions = [_condition(part) for part in parts]
        self.fields = tuple(condition.field for condition in self._conditions)

    def holds(self, record: Mapping[str, str], path: str) -> bool:
        """Raises `BadDataset`, naming `path`, where a number is needed and there is none."""
        return all(condition.holds(record, path) for condition in self._conditions)


@dataclass(frozen=True, slots=True)
class _Condition:
    field: str
    sign: str
    value: str
    number: float | None
    """The value, where it is one."""

    def holds(self, record: Mapping[str, str], path: str) -> bool:
        given = record[self.field]
        if self.number is not None and (found := number(given)) is not None:
            return _OPERATORS[self.sign](found, self.number)
        if self.sign in _EQUALITY:
            return _OPERATORS[self.sign](given, self.value)
        raise BadDataset(
            f"The field {self.field!r} of {path[:200]!r} is {given[:60]!r}, which is no number; "
            "the filter needs one."
        )


def _condition(text: str) -> _Condition:
    match = _SPLIT.fullmatch(text)
    if match is None:
        raise BadArgument(f"{text[:80]!r} is no comparison of a field with a value. {_HELP}")
    field, sign, value = match.groups()
    quote = value[0] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else ""
    if (not quote or quote in value[1:-1]) and (more := _MORE.search(value)):
        raise BadArgument(
            f"{text[:80]!r} has {more.group().strip()!r} in its value: comparisons are joined by "
            f"`and` alone, and a text with such signs is put in quotes. {_HELP}"
        )
    value = value[1:-1] if quote else value
    if sign not in _EQUALITY and number(value) is None:
        raise BadArgument(f"{text[:80]!r} compares sizes, and {value[:40]!r} is no number. {_HELP}")
    return _Condition(field, sign, value, number(value))
