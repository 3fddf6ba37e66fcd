"""Hot swap under load, in small; `benchmarks/swap_under_load.py` does a thousand sets."""

import asyncio
from pathlib import Path

import httpx
import pytest

from benchmarks.swap_under_load import Active, Run, swap
from tests.conftest import start_server
from tests.fakes import COLOURS, jpeg, tiny_model


@pytest.mark.parametrize("workers", [1, 2])
def test_sets_under_load_lose_no_request_and_leave_no_stale_answer(
    tmp_path: Path, workers: int
) -> None:
    server = start_server(tmp_path / "server", workers=workers)
    try:
        plain = tiny_model(tmp_path / "a", server.registry)
        green = tiny_model(tmp_path / "b", server.registry, bias=(0.0, 30.0, 0.0))
        httpx.post(f"{server.url}/set", json={"tag": green}, timeout=60).raise_for_status()
        faults = asyncio.run(
            swap(
                server.url,
                server.process.pid,
                {plain: list(COLOURS), green: ["green"] * 3},
                [jpeg(colour) for colour in COLOURS],
                sets=52,
                connections=8,
            )
        )
        assert faults == []
        assert "Traceback" not in server.log.read_text()
    finally:
        server.stop()


def test_the_check_finds_stale_wrong_and_refused_answers() -> None:
    run = Run({"a": ["red"], "b": ["green"]}, [Active("a", 0.0, until=1.0), Active("b", 1.0)])

    def answer(model: str, label: str) -> bytes:
        return f'{{"model": "{model}", "predictions": [{{"label": "{label}"}}]}}'.encode()

    run.check(0, 200, answer("b", "green"), sent=5.0)
    run.check(0, 200, answer("a", "red"), sent=1.9)
    assert run.faults == []
    run.check(0, 200, answer("a", "red"), sent=2.1)
    run.check(0, 200, answer("b", "red"), sent=5.0)
    run.check(0, 503, b"busy", sent=5.0)
    assert len(run.faults) == 3
