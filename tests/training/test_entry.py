"""Commands of `training` as processes: an interrupt ends them without a traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WAITS = "import sys, time; print('here', flush=True); time.sleep(60)"


@pytest.mark.parametrize("where", ["imports", "work"])
def test_an_interrupted_command_says_that_it_was_stopped(tmp_path: Path, where: str) -> None:
    text = WAITS if where == "imports" else f"def main(arguments):\n    {WAITS}"
    (tmp_path / "waiting.py").write_text(text)
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "training.entry", "waiting"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == "stopped\n"
        assert process.returncode == 130


def test_the_exit_code_is_that_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text("def main(arguments):\n    return len(arguments)")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "training.entry", "failing", "a", "b", "c"],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        check=False,
    )
    assert done.returncode == 3
