"""Who may do what: bearer tokens and the role of each, from the settings.

    IMGCLS_TOKENS=predict:TOKEN,manage:TOKEN
    IMGCLS_TOKENS_FILE=FILE                     one `role:TOKEN` a line; `#` begins a comment

`manage` includes `predict`. Tokens of both places count; without either there is no check. A place
that is named and holds no usable token stops the process, so that a slip never opens the service.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple, cast, get_args

from imgcls.errors import ImgclsError
from imgcls.settings import get_settings

Role = Literal["predict", "manage"]

SHORTEST = 16
"""Characters that a token must have: fewer can be guessed."""
TOKEN = r"[A-Za-z0-9._~+/-]+=*"
"""A token as RFC 6750 writes it, so that it passes through any header; a regular expression."""
_ENTRY = re.compile(rf"(\w+):({TOKEN})")


class Token(NamedTuple):
    role: Role
    text: str


class Tokens:
    """Finds the role of a token in a time that tells nothing about the known ones.

    Only digests are kept: digests of one length can be compared in constant time, and a dump of
    the process's objects shows no token.
    """

    def __init__(self, given: Iterable[Token]) -> None:
        self._roles = [(_digest(token.text.encode()), token.role) for token in given]

    def role_of(self, token: bytes) -> Role | None:
        """The role of a token as it was sent; None where it is not known."""
        digest = _digest(token)
        found: Role | None = None
        for known, role in self._roles:
            # No early exit: the time must not tell where in the list a token stands.
            if hmac.compare_digest(known, digest):
                found = role
        return found


def given_tokens() -> list[Token]:
    """All tokens of the settings, in their order; empty where the check is off.

    Raises `ImgclsError` for a file that cannot be read, a place without tokens, a role that does
    not exist, and a token that is too short, malformed or given twice. No message shows a token.
    """
    settings = get_settings()
    tokens: list[Token] = []
    if settings.tokens is not None:
        tokens += _parsed(settings.tokens.get_secret_value().split(","), "IMGCLS_TOKENS")
    if settings.tokens_file is not None:
        place = f"IMGCLS_TOKENS_FILE ({settings.tokens_file})"
        try:
            lines = settings.tokens_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as err:
            raise ImgclsError(f"{place} cannot be read: {err}") from err
        tokens += _parsed([line.partition("#")[0] for line in lines], place)
    if len({token.text for token in tokens}) < len(tokens):
        raise ImgclsError("A token is given twice; each must have one role, so make another.")
    return tokens


def own_token() -> str | None:
    """A token with which this machine can ask its own service, or None where none is needed."""
    return next((token.text for token in given_tokens()), None)


def _parsed(entries: Iterable[str], place: str) -> list[Token]:
    found = [
        _token(entry, f"{place}, entry {number}")
        for number, entry in enumerate(map(str.strip, entries), 1)
        if entry
    ]
    if not found:
        raise ImgclsError(
            f"{place} holds no token. Write role:TOKEN, or unset it to serve without tokens."
        )
    return found


def _token(entry: str, place: str) -> Token:
    match = _ENTRY.fullmatch(entry)
    if match is None or match[1] not in get_args(Role):
        raise ImgclsError(
            f"{place} is not role:TOKEN, with a role of {' or '.join(get_args(Role))} and a token "
            "of letters, digits and -._~+/ (= at its end)."
        )
    if len(match[2]) < SHORTEST:
        raise ImgclsError(
            f"{place}: the token is shorter than {SHORTEST} characters and could be guessed; "
            "`openssl rand -hex 32` makes a good one."
        )
    return Token(cast(Role, match[1]), match[2])


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
