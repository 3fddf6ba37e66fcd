"""The prediction log: what BentoML writes of answers, and how many of them."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from imgcls import monitor
from imgcls.monitor import PredictionLog
from tests.conftest import start_server
from tests.fakes import jpeg, tiny_model, tiny_regression

ANSWER = {"model": "a:1", "predictions": [{"label": "red", "probability": 0.9}]}


def test_logged_predictions_name_the_request_the_image_and_the_answer(tmp_path: Path) -> None:
    server = start_server(
        tmp_path / "s",
        IMGCLS_MONITOR_RATE="1",
        BENTOML_CONFIG_OPTIONS=f"services.imgcls.monitoring.options.log_path={tmp_path / 'log'}",
    )
    try:
        tag = tiny_model(tmp_path / "m", server.registry)
        httpx.post(f"{server.url}/set", json={"tag": tag}, timeout=30)
        pictures = [jpeg("red"), b"\xff\xd8\xff broken", jpeg("blue")]
        files = [("images", (f"{n}.jpg", data)) for n, data in enumerate(pictures)]
        headers = {"x-request-id": "sampled-1"}
        answer = httpx.post(f"{server.url}/predict", files=files, headers=headers, timeout=30)
        assert answer.status_code == 200
        scores = tiny_regression(tmp_path / "r", server.registry)
        white = {"images": jpeg("white")}
        httpx.post(f"{server.url}/predict", files=white, data={"model": scores}, timeout=30)
        lines: list[dict[str, Any]] = []
        deadline = time.monotonic() + 10
        while len(lines) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
            logs = (tmp_path / "log" / monitor.NAME / "data").glob("data.*.log")
            lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    finally:
        server.stop()
    *lines, scored = lines
    assert (scored["model"], scored["score"], scored["label"]) == (scores, 10.0, None)
    assert [line["label"] for line in lines] == ["red", "blue"]
    assert [line["image_sha256"] for line in lines] == [
        hashlib.sha256(pictures[n]).hexdigest() for n in (0, 2)
    ]
    for line in lines:
        assert (line["model"], line["x_request_id"]) == (tag, "sampled-1")
        assert 0.9 < line["probability"] <= 1
        assert (line["abstained"], line["score"]) == (None, None)


@pytest.mark.parametrize(("rate", "least", "most"), [(0, 0, 0), (0.2, 120, 280), (1, 1000, 1000)])
def test_the_rate_is_the_share_of_answers(
    monkeypatch: pytest.MonkeyPatch, rate: float, least: int, most: int
) -> None:
    written: list[str] = []
    log = PredictionLog(rate)
    monkeypatch.setattr(log, "_write", lambda file, model, prediction: written.append(model))
    for _ in range(1000):
        log.offer([b"x"], ANSWER)
    log.close()
    assert least <= len(written) <= most


def test_a_log_that_cannot_be_written_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(name: str) -> Any:
        raise OSError("No space left on device")

    monkeypatch.setattr("bentoml.monitor", full)
    log = PredictionLog(1)
    for _ in range(3000):
        log.offer([b"x"], ANSWER)
    log.close()
    assert "No space left" in caplog.text
