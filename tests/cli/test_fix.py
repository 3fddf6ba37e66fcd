"""`imgcls data findings` and `imgcls data fix`: from a fault to a version without it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import answer, imgcls
from tests.fakes import class_folders


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders with a file that cannot be read."""
    folder = class_folders(tmp_path / "photos")
    (next(path for path in folder.iterdir() if path.is_dir()) / "bad.jpg").write_bytes(b"x")
    return folder


def test_a_reviewed_list_makes_a_version_without_the_faults(photos: Path, tmp_path: Path) -> None:
    found = answer("data", "findings", str(photos))["findings"]
    bad = [finding["paths"][0] for finding in found if finding["kind"] == "unreadable"]
    assert len(bad) == 1
    table = imgcls("data", "findings", "photos")
    assert bad[0].rpartition("/")[2] in table.stdout

    out = tmp_path / "fix.csv"
    result = imgcls("data", "fix", "photos", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert f"--apply {out}" in "".join(result.stderr.splitlines())
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert {"path": bad[0], "action": "drop"}.items() <= rows[0].items()

    fixed = answer("data", "fix", "photos", "--apply", str(out))
    assert fixed["unreadable"] == 0
    assert fixed["labelling"]["fix"]
    assert answer("data", "show", "photos")["tag"] == fixed["tag"]
    left = answer("data", "findings", fixed["tag"])["findings"]
    assert "unreadable" not in {finding["kind"] for finding in left}


def test_a_list_that_is_there_is_not_written_over(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "fix.csv").write_text("edited")
    result = imgcls("data", "fix", photos, "--out", tmp_path / "fix.csv")
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert (tmp_path / "fix.csv").read_text() == "edited"


def test_a_list_that_does_not_fit_is_refused_in_one_line(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "fix.csv").write_text("path,action\nnowhere.jpg,drop\n")
    result = imgcls("data", "fix", str(photos), "--apply", str(tmp_path / "fix.csv"))
    assert result.exit_code == 1
    assert "nowhere.jpg" in result.stderr


def test_a_class_that_a_list_makes_is_named(photos: Path, tmp_path: Path) -> None:
    path = next(path for path in photos.rglob("*.jpg") if path.name != "bad.jpg")
    list_of = tmp_path / "fix.csv"
    for label, told in (("dgo", True), ("red", False)):
        list_of.write_text(f"path,action,value\n{path.relative_to(photos)},relabel,{label}\n")
        result = imgcls("data", "fix", photos, "--apply", list_of)
        assert result.exit_code == 0, result.output
        assert ("not there before: dgo" in result.stderr) == told


@pytest.mark.parametrize("options", [(), ("--out", "a.csv", "--apply", "b.csv")])
def test_either_a_list_is_written_or_one_is_applied(photos: Path, options: tuple[str, ...]) -> None:
    assert imgcls("data", "fix", str(photos), *options).exit_code == 2


@pytest.mark.parametrize("options", [("--recipe", "nothing"), ("--set", "head.kind=foo")])
def test_a_refusal_of_looking_for_wrong_labels_is_json_where_that_is_asked_for(
    photos: Path, capfd: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    result = imgcls("data", "mislabelled", str(photos), *options, "--json")
    assert result.exit_code == 1
    assert json.loads(capfd.readouterr().out)["code"] == "bad_recipe"


def test_looking_for_wrong_labels_is_stopped_without_a_traceback(photos: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "imgcls.cli", "data", "mislabelled", photos],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and "training.entry" not in _commands(process.pid):
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.count("stopped") == 1


def _commands(session: int) -> str:
    return subprocess.run(
        ["ps", "-s", str(session), "-o", "args="], capture_output=True, text=True, check=False
    ).stdout
