"""Request ids, and what the log says: one line an event, as text or as JSON.

Every request has an id: the client's `X-Request-ID`, where that is short and printable, else one
made here. It goes back as a response header and stands on every line that the request logs.
`imgcls.access` has a line for each request where `IMGCLS_LOG_ACCESS` asks for it.
"""

import json
import logging
import re
import secrets
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from imgcls.settings import get_settings

access_logger = logging.getLogger("imgcls.access")

_HEADER = b"x-request-id"
_VALID_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
"""Asked all the time by machines; no line each."""

_notes: ContextVar[dict[str, Any] | None] = ContextVar("imgcls_request", default=None)
"""What is known of the request that is under way; `request_id` always."""


def request_id() -> str | None:
    """The id of the request that is under way; None outside of any."""
    notes = _notes.get()
    return None if notes is None else str(notes["request_id"])


def note(**fields: Any) -> None:
    """Add fields to the access line of the request that is under way."""
    notes = _notes.get()
    if notes is not None:
        notes.update(fields)


class Requests:
    """ASGI middleware: gives each request its id, and writes the access log."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self._logs = get_settings().log_access

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        number = _given(scope["headers"]) or secrets.token_hex(8).encode()
        notes: dict[str, Any] = {"request_id": number.decode()}
        _notes.set(notes)

        async def send_with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (_HEADER, number)]
                notes["status"] = message["status"]
            await send(message)

        if not self._logs or scope["path"] in _PROBES:
            await self.app(scope, receive, send_with_id)
            return
        started = time.perf_counter()
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            _write_access(scope, notes, time.perf_counter() - started)


def _given(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    for name, value in headers:
        if name == _HEADER:
            return value if _VALID_ID.fullmatch(value) else None
    return None


def _write_access(scope: Any, notes: dict[str, Any], seconds: float) -> None:
    fields = {
        "method": scope["method"],
        "path": scope["path"][:200],
        "status": 0,  # the client left before there was a response
        "duration_ms": round(seconds * 1000, 3),
        "client": (scope.get("client") or [None])[0],
    } | notes
    access_logger.info(
        "%(method)s %(path)r %(status)s in %(duration_ms)s ms", fields, extra={"fields": fields}
    )


class TextLines(logging.Formatter):
    """A line for people, with the request's id at its end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(levelname)s] %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        number = request_id()
        return super().formatMessage(record) + (f" (request {number})" if number else "")


class JsonLines(logging.Formatter):
    """A JSON object a line: `time`, `level`, `logger`, `message`, `request_id` and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if number := request_id():
            line["request_id"] = number
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(form: Literal["text", "json"]) -> None:
    """Let imgcls log to standard output in one form; as JSON, BentoML's lines of this process too.

    What BentoML's supervising process prints while it starts stays text.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logger = logging.getLogger("imgcls")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if form == "json":
        for name in ("", "bentoml"):
            for other in logging.getLogger(name).handlers:
                other.setFormatter(JsonLines())
