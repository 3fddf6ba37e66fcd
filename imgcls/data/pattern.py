"""Pattern: the fields in file names, such as `{id}_{gender}_{country}_{rate}_{votes}`.

No regular expression is made of a pattern, since patterns come from outside: a name is cut at the
pattern's own texts, from its end to its beginning, in one go.
"""

import re
from string import Formatter

from imgcls.errors import BadArgument

FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
"""What a field may be called."""
_MAX_PATTERN, _MAX_FIELDS = 200, 16
_HELP = "write it like {id}_{gender}_{rate}, with a text between any two fields."


class Pattern:
    """Matches the end of a path: as many folders as the pattern has slashes, then the file's name
    without its extension."""

    def __init__(self, text: str) -> None:
        """Raises `BadArgument` where `text` is no pattern."""
        plain = text.removesuffix(".{ext}")
        if not 0 < len(plain) <= _MAX_PATTERN or not plain.isprintable():
            raise BadArgument(
                f"A pattern has 1 to {_MAX_PATTERN} printable characters; {_HELP}",
            )
        shown = f"The pattern {text!r} cannot be used"
        try:
            parts = list(Formatter().parse(plain))
        except ValueError as err:
            raise BadArgument(f"{shown} ({err}); {_HELP}") from err
        fields: list[str] = []
        self._texts = [""]
        for literal, field, spec, conversion in parts:
            self._texts[-1] += literal
            if field is None:
                continue
            if spec or conversion or not FIELD.fullmatch(field):
                raise BadArgument(
                    f"{shown}: a field is a name of up to 32 letters, digits and underscores in "
                    f"braces; {_HELP}"
                )
            if fields and not self._texts[-1]:
                raise BadArgument(f"{shown}: nothing stands between two of its fields; {_HELP}")
            fields.append(field)
            self._texts.append("")
        if not 0 < len(fields) <= _MAX_FIELDS or len(set(fields)) != len(fields):
            raise BadArgument(
                f"{shown}: it needs 1 to {_MAX_FIELDS} fields, each once; {_HELP}",
            )
        self.text = text
        self.fields = tuple(fields)
        self._folders = plain.count("/")

    def match(self, path: str) -> dict[str, str] | None:
        """Field values of an image's path, none of them empty; None where it does not match.

        A field reaches from the nearest text before it to the one behind it, beginning with the
        last; the first takes what is left, so that it alone may hold the texts between fields.
        """
        parts = path.split("/")
        if len(parts) <= self._folders:
            return None
        rest = "/".join(parts[-self._folders - 1 :])
        rest = rest[: rest.rfind(".")]
        first, *between, last = self._texts
        if not (rest.endswith(last) and rest.startswith(first)):
            return None
        rest = rest[len(first) : len(rest) - len(last)]
        found = {}
        for text, field in zip(reversed(between), reversed(self.fields), strict=False):
            rest, text_there, found[field] = rest.rpartition(text)
            if not text_there:
                return None
        found[self.fields[0]] = rest
        return found if all(found.values()) else None
