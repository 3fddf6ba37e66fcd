"""A module of `training`, run to its end by commands whose work is no job."""

import contextlib
import os
import subprocess
import sys

import typer

_GRACE = 3.0
"""Seconds in which an interrupted module cleans up."""


def check_installed(why: str) -> None:
    """Raises `Conflict` where training is not installed; `why` says what it is needed for."""
    from imgcls.errors import Conflict
    from imgcls.jobs import can_train

    if not can_train():
        raise Conflict(f"{why}: install imgcls[train] first.")


def run_module(module: str, *arguments: str) -> None:
    """Run it with these arguments; it shows its own progress and refusals.

    Raises `typer.Exit` where it fails.
    """
    from imgcls.jobs import python_path

    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "training.entry", module, *arguments],
        env=os.environ | {"PYTHONPATH": python_path()},
    )
    try:
        code = _wait(child)
    finally:
        child.kill()
        child.wait()
    if code:
        raise typer.Exit(code)


def _wait(child: subprocess.Popen[bytes]) -> int:
    try:
        return child.wait()
    except KeyboardInterrupt:
        # A terminal interrupts both, and then the child says so.
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(_GRACE)
        raise
