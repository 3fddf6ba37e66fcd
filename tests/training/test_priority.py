"""A training gives way to predictions."""

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="needs Linux")
def test_a_job_is_nicer_than_its_server_and_interrupts_nobody() -> None:
    code = (
        "import os; from training.__main__ import go_behind_predictions as go; "
        "before = os.nice(0); go(); print(os.nice(0) - before, os.sched_getscheduler(0))"
    )
    environment = os.environ | {"IMGCLS_FIT_NICE": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["7", str(os.SCHED_BATCH)], done.stderr
