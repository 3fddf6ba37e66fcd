"""The command line, as tests type it."""

import json
import subprocess
import sys
from typing import Any

from typer.testing import CliRunner, Result

from imgcls.cli.app import app
from tests.conftest import ROOT


def imgcls(*arguments: object) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> Any:
    """What it says with `--json`; it must succeed."""
    result = imgcls(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def without(module: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """A command in a process that lacks a module."""
    code = (
        f"import sys; sys.modules[{module!r}] = None\nfrom imgcls.cli import main; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
