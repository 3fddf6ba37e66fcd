"""`python -m training`: job folders end in a result whatever happens; exit codes tell the rest."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imgcls.jobs import JobRequest, JobWriter
from imgcls.registry import Registry
from training.__main__ import main, run_job, stoppable

ROOT = Path(__file__).parents[2]
SMALL = {"preset": "cnn", "epochs": 1, "network": {"width": 0.5, "dense": 8}}
ENDLESS = {"preset": "cnn", "epochs": 10_000, "early_stop": {"patience": 0}}


@pytest.fixture
def job(home: Path) -> Callable[..., Path]:
    def make(dataset: str | Path, **request: Any) -> Path:
        folder = home / "jobs" / "20260101-000000-000000-abcd"
        folder.mkdir(parents=True)
        recipe = request.pop("recipe", SMALL)
        wanted = JobRequest(dataset=str(dataset), recipe=recipe, name="shapes", **request)
        (folder / "request.json").write_text(wanted.model_dump_json())
        return folder

    return make


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For `run_job`: the tests keep their priority and signals, and hold no queue."""
    monkeypatch.setattr("os.nice", lambda step: step)
    monkeypatch.setattr(JobWriter, "wait_turn", lambda writer: writer.emit("queued"))
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def result(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "result.json").read_bytes())
    return loaded


def start(folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "training", "--job", str(folder)], cwd=ROOT)


def test_a_job_reports_its_stages_and_registers_its_model(
    job: Callable[..., Path], shapes: Callable[..., Path], in_this_process: None
) -> None:
    folder = job(shapes(), baseline=True)
    assert run_job(folder) == 0
    tag = result(folder)["tag"]
    assert result(folder)["state"] == "succeeded"
    assert Registry().get(tag).baseline
    lines = (folder / "events.jsonl").read_text().splitlines()
    stages = [json.loads(line)["stage"] for line in lines]
    assert list(dict.fromkeys(stages)) == [
        "queued", "loading", "training", "evaluating", "exporting", "registering", "done",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "recipe", "code"),
    [
        ("/nowhere.zip", SMALL, "dataset_not_found|bad_dataset"),
        ("none:1", {"preset": "cnn", "epoch": 1}, "bad_recipe"),
    ],
)
def test_a_job_that_cannot_be_done_says_why(
    job: Callable[..., Path],
    in_this_process: None,
    dataset: str,
    recipe: dict[str, Any],
    code: str,
) -> None:
    folder = job(dataset, recipe=recipe)
    assert run_job(folder) == 1
    assert result(folder)["state"] == "failed"
    assert result(folder)["code"] in code.split("|")


def test_an_unforeseen_error_is_internal_and_leaves_its_traceback_in_the_log(
    job: Callable[..., Path],
    shapes: Callable[..., Path],
    in_this_process: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("training.run.fit", lambda *args, **options: 1 / 0)
    folder = job(shapes())
    assert run_job(folder) == 1
    assert result(folder)["code"] == "internal"
    assert result(folder)["reason"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in capsys.readouterr().err


def test_a_job_past_its_time_limit_ends_as_such_with_no_model(
    job: Callable[..., Path], shapes: Callable[..., Path], registry: Registry
) -> None:
    folder = job(shapes(), recipe=ENDLESS, time_limit=0.5)
    assert start(folder).wait(60) == 124
    assert result(folder)["code"] == "time_limit"
    assert registry.cards() == []


def test_a_terminated_job_exits_cleanly_without_a_result(
    job: Callable[..., Path], shapes: Callable[..., Path]
) -> None:
    folder = job(shapes(), recipe=ENDLESS)
    process = start(folder)
    events = folder / "events.jsonl"
    deadline = time.monotonic() + 60
    while not (events.exists() and "loading" in events.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert not (folder / "result.json").exists()


def test_the_foreground_trainer_prints_the_key_figures(
    shapes: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "recipe.yaml"
    config.write_text("preset: cnn\nepochs: 2\nnetwork: {width: 0.5}\n")
    argv = [str(shapes()), "--name", "shapes", "--config", str(config), "--set", "network.dense=8"]
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert "accuracy" in printed.out
    assert "registered  shapes:" in printed.out
    assert "epoch 2/2" in printed.err
    assert Registry().cards()[0].hyperparameters["network"]["dense"] == 8


def test_exit_codes_tell_a_wrong_command_from_a_failed_training(
    shapes: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(shapes())
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert main([data, "--set", "nonsense=1"]) == 2
    assert main(["/nowhere.zip"]) == 2
    probe = ["--recipe", "linear-probe", "--set", "features.weights=/nowhere.pth"]
    assert main([data, *probe]) == 1
    assert "weights=none" in capsys.readouterr().err


def test_help_and_a_bad_command_need_no_torch() -> None:
    code = "import sys, training.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_what_is_being_registered_can_no_longer_be_stopped(
    job: Callable[..., Path], in_this_process: None, home: Path
) -> None:
    folder = job("nowhere")
    unstoppable = stoppable(JobWriter(folder), 0.2)
    unstoppable()
    signal.raise_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert not (folder / "result.json").exists()


def test_a_recipe_file_and_a_recipe_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["data", "--recipe", "cnn", "--config", str(tmp_path / "recipe.yaml")])
    assert stopped.value.code == 2
