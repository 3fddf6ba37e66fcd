"""Tracing is BentoML's: gone where nobody collects the spans, whole where an exporter is set."""

from pathlib import Path

import httpx

from tests.conftest import Server, start_server
from tests.fakes import jpeg

TRACE = "0af7651916cd43dd8448eb211c80319c"


def traced_predict(server: Server) -> httpx.Headers:
    files = [("images", ("a.jpg", jpeg()))]
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    return httpx.post(f"{server.url}/predict", files=files, headers=headers, timeout=30).headers


def test_with_an_exporter_requests_are_spans_of_their_callers_trace(tmp_path: Path) -> None:
    options = {
        "services.imgcls.tracing.exporter_type": "in_memory",
        "services.imgcls.tracing.sample_rate": "1.0",
        "services.imgcls.http.response.trace_id": "true",
    }
    joined = " ".join(f"{key}={value}" for key, value in options.items())
    server = start_server(tmp_path / "s", BENTOML_CONFIG_OPTIONS=joined)
    try:
        headers = traced_predict(server)
    finally:
        server.stop()
    assert headers["x-bentoml-trace-id"] == TRACE
    assert headers["x-bentoml-request-id"]
    assert headers["x-request-id"]


def test_without_an_exporter_there_are_no_spans(server: Server) -> None:
    headers = traced_predict(server)
    assert "x-bentoml-request-id" not in headers
    assert headers["x-request-id"]
