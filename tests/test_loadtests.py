"""The load tests themselves: what passes, what fails, and that a real run says so."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from loadtests.scenarios import SCENARIOS, Figures, Limits, Scenario, faults
from tests.conftest import ROOT, Server
from tests.fakes import tiny_model

GOOD = Figures(
    predictions=1000,
    good_requests=1000,
    good_failures=0,
    p99_ms=100,
    hostile_requests=0,
    hostile_failures=0,
)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"predictions": 0}, "no prediction"),
        ({"good_failures": 11}, "11 of 1000"),
        ({"p99_ms": 201}, "p99"),
        ({"hostile_failures": 1}, "hostile"),
        ({"memory_mb": [100.0] * 10 + [150.0] * 10}, "memory grew by 50"),
    ],
)
def test_each_limit_fails_a_run_by_itself(change: dict[str, object], fault: str) -> None:
    scenario = Scenario("strict", Limits(p99_ms=200, error_rate=0.01, growth_mb=40))
    assert faults(GOOD, scenario) == []
    (found,) = faults(dataclasses.replace(GOOD, **change), scenario)  # type: ignore[arg-type]
    assert fault in found


def test_memory_counts_from_when_caches_are_warm() -> None:
    warming = dataclasses.replace(GOOD, memory_mb=[100.0] * 5 + [300.0] * 15)
    assert warming.growth_mb == 0
    assert GOOD.growth_mb is None
    assert faults(GOOD, SCENARIOS["soak"]) == []


def test_a_hostile_run_without_attacks_has_tested_nothing() -> None:
    assert faults(GOOD, SCENARIOS["hostile"]) == ["no hostile request was made"]


def run(scenario: str, host: str, results: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "loadtests.run", "--scenario", scenario, "--host", host]
    command += ["--seconds", "3", "--users", "2", "--results", str(results)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("scenario", ["spike", "set", "hostile"])
def test_a_run_passes_against_a_service_that_runs_already(
    server: Server, tmp_path: Path, scenario: str
) -> None:
    for number in range(2):
        tag = tiny_model(tmp_path / f"model-{number}", server.registry)
    httpx.post(f"{server.url}/set", json={"tag": tag}).raise_for_status()
    done = run(scenario, server.url, tmp_path, LOADTEST_TOKEN="anything")
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads((tmp_path / f"{scenario}.json").read_text())
    assert verdict["passed"]
    assert verdict["figures"]["predictions"] > 0
    assert "<html" in (tmp_path / f"{scenario}.html").read_text()


def test_a_run_that_exceeds_a_limit_fails(server: Server, tmp_path: Path) -> None:
    tag = tiny_model(tmp_path / "model", server.registry)
    httpx.post(f"{server.url}/set", json={"tag": tag}).raise_for_status()
    done = run("steady", server.url, tmp_path, LOADTEST_P99_MS="0.001")
    assert done.returncode == 1
    assert "p99 of predictions" in done.stdout


def test_a_scenario_that_leaves_models_behind_refuses_a_foreign_host(tmp_path: Path) -> None:
    done = run("mixed", "http://127.0.0.1:1", tmp_path)
    assert done.returncode == 1
    assert "a service of its own" in done.stderr
