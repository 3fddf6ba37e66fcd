"""Request ids and log lines, of a formatter alone and of a real server."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from imgcls.logs import JsonLines, Requests, TextLines
from tests.conftest import Server, start_server
from tests.fakes import jpeg, tiny_model


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that logs every request as JSON."""
    root = tmp_path_factory.mktemp("talking")
    started = start_server(root, IMGCLS_LOG_ACCESS="true", IMGCLS_LOG_FORMAT="json")
    tag = tiny_model(root / "m", started.registry)
    httpx.post(f"{started.url}/set", json={"tag": tag}, timeout=30)
    yield started
    started.stop()


def predict(server: Server, content: bytes, **headers: str) -> httpx.Response:
    files = [("images", ("a.jpg", content))]
    return httpx.post(f"{server.url}/predict", files=files, headers=headers, timeout=30)


def access_lines(server: Server, request_id: str) -> list[dict[str, Any]]:
    """Lines of `imgcls.access` about one request; waits for the first."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = [
            json.loads(line)
            for line in server.log.read_text().splitlines()
            if line.startswith("{") and request_id in line
        ]
        if found := [line for line in lines if line["logger"] == "imgcls.access"]:
            return found
        time.sleep(0.05)
    return []


def test_a_request_keeps_the_id_that_it_came_with(server: Server) -> None:
    for given in ("abc-123", "x" * 128, "trace/7:{1}"):
        for path in ("/livez", "/nothing", "/metrics"):
            answer = httpx.get(f"{server.url}{path}", headers={"X-Request-ID": given})
            assert answer.headers.get_list("x-request-id") == [given]
    assert predict(server, b"broken", **{"x-request-id": "mine"}).headers["x-request-id"] == "mine"


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", "caf\xe9", "tab\there"])
def test_an_id_that_could_do_harm_is_replaced(server: Server, given: str) -> None:
    headers = {b"X-Request-ID": given.encode("latin-1")}
    answer = httpx.get(f"{server.url}/livez", headers=headers)
    made = answer.headers.get_list("x-request-id")
    assert len(made) == 1
    assert made[0] != given
    assert len(made[0]) == 16


def test_made_ids_differ(server: Server) -> None:
    made = {httpx.get(f"{server.url}/livez").headers["x-request-id"] for _ in range(20)}
    assert len(made) == 20


def test_each_request_has_one_access_line(talking: Server) -> None:
    assert predict(talking, jpeg(), **{"x-request-id": "good-1"}).status_code == 200
    assert predict(talking, b"\xff\xd8\xff", **{"x-request-id": "bad-1"}).status_code == 400
    (good,) = access_lines(talking, "good-1")
    assert (good["method"], good["path"], good["status"]) == ("POST", "/predict", 200)
    assert good["request_id"] == "good-1"
    assert good["model"].startswith("tiny:")
    assert good["images"] == 1
    assert 0 < good["duration_ms"] < 30_000
    assert good["client"] == "127.0.0.1"
    (bad,) = access_lines(talking, "bad-1")
    assert (bad["status"], bad["code"]) == (400, "broken_image")
    assert "model" not in bad


def test_probes_have_no_access_line(talking: Server) -> None:
    for number, path in enumerate(("/livez", "/readyz", "/metrics")):
        headers = {"x-request-id": f"probe-{number}"}
        assert httpx.get(f"{talking.url}{path}", headers=headers).status_code == 200
    assert predict(talking, jpeg(), **{"x-request-id": "after-the-probes"}).status_code == 200
    assert access_lines(talking, "after-the-probes")
    assert "probe-0" not in talking.log.read_text()


def test_without_the_setting_no_request_is_logged(server: Server) -> None:
    predict(server, b"x", **{"x-request-id": "silent-1"})
    time.sleep(0.2)
    assert "silent-1" not in server.log.read_text()


def test_a_workers_lines_are_json_throughout(talking: Server) -> None:
    lines = talking.log.read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("{"))
    parsed = [json.loads(line) for line in lines[first:]]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in parsed)


def record(message: str, fault: Exception | None = None) -> logging.LogRecord:
    info = (type(fault), fault, fault.__traceback__) if fault else None
    return logging.LogRecord("imgcls.x", logging.ERROR, __file__, 1, message, None, info)


def test_a_message_with_line_breaks_is_one_line_of_json() -> None:
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError as err:
        text = JsonLines().format(record("first\nsecond", err))
    assert "\n" not in text
    line = json.loads(text)
    assert line["message"] == "first\nsecond"
    assert "RuntimeError" in line["exception"]
    assert "request_id" not in line


def test_what_a_request_logs_carries_its_id() -> None:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.extend((JsonLines().format(record), TextLines().format(record)))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(ZeroDivisionError):
            await asyncio.gather(asyncio.sleep(0), fails())

    async def fails() -> None:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            logger.exception("it failed")
            raise

    logger = logging.getLogger("imgcls.of_a_test")
    logger.addHandler(Keep())
    scope = {"type": "http", "path": "/x", "method": "POST", "headers": [(b"x-request-id", b"r7")]}
    asyncio.run(Requests(app)(scope, None, None))
    assert json.loads(lines[0])["request_id"] == "r7"
    assert "ZeroDivisionError" in json.loads(lines[0])["exception"]
    assert "it failed (request r7)" in lines[1]


def test_a_line_of_text_outside_of_a_request_names_none() -> None:
    assert TextLines().format(record("hello")).endswith("[ERROR] imgcls.x: hello")
