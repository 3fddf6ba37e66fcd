"""A module of `training`, run to its end by commands whose work is no job."""

import os
import subprocess
import sys

import typer


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

    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments],
        env=os.environ | {"PYTHONPATH": python_path()},
        check=False,
    )
    if done.returncode:
        raise typer.Exit(done.returncode)
