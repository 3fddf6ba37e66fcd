"""`imgcls data`: adding, listing, comparing and removing, as people and scripts see them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from imgcls.cli.app import app
from imgcls.data import DatasetStore
from imgcls.jobs import JobRequest, Jobs
from tests.commands import answer, imgcls
from tests.fakes import class_folders
from tests.test_jobs import jobs_with, until


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


def test_an_empty_store_lists_nothing_and_says_what_to_do() -> None:
    assert answer("data", "list") == {"datasets": []}
    result = imgcls("data", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "imgcls data add" in result.stderr


def test_a_stored_name_is_meant_where_a_folder_is_called_so(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = answer("data", "add", photos, "--name", "pets")["tag"]
    class_folders(tmp_path / "here" / "pets", per_class=4)
    monkeypatch.chdir(tmp_path / "here")
    assert answer("eda", "pets")["tag"] == answer("data", "show", "pets")["tag"] == tag
    assert "not for ./pets" in imgcls("data", "findings", "pets").stderr
    refused = imgcls("eda", "pets", "--where", "votes>=5")
    assert "a path such as ./pets" in refused.stderr
    other = answer("eda", "./pets")
    assert other["tag"] != tag
    class_folders(tmp_path / "here" / "birds", per_class=4)
    named = imgcls("eda", "birds")
    assert (named.exit_code, "birds:" in named.stdout) == (0, True)
    assert "is taken for" not in named.stderr


def test_what_is_added_is_listed_and_shown(photos: Path) -> None:
    added = answer("data", "add", str(photos), "--name", "colours")
    assert added["tag"].startswith("colours:")
    assert answer("data", "list") == answer("data", "list", "colours") == {"datasets": [added]}
    assert answer("data", "list", "others") == {"datasets": []}
    assert answer("data", "show", "colours") == added
    shown = imgcls("data", "show", added["tag"]).stdout
    assert all(
        text in shown for text in (added["tag"], "blue, green, red", "train 27", str(photos))
    )
    assert added["tag"] in imgcls("data", "list").stdout


def test_only_a_path_can_be_added(photos: Path) -> None:
    answer("data", "add", str(photos), "--name", "colours")
    refused = imgcls("data", "add", "colours", "--json")
    assert (refused.exit_code, json.loads(refused.stdout)["code"]) == (1, "bad_dataset")


def test_diff_says_what_came_and_went(photos: Path) -> None:
    old = answer("data", "add", str(photos))["tag"]
    (photos / "red" / "000.jpg").rename(photos / "blue" / "new.jpg")
    new = answer("data", "add", str(photos))["tag"]
    found = answer("data", "diff", old, "photos")
    assert (found["old"], found["new"]) == (old, new)
    assert found["relabelled"]["images"] == [{"path": "blue/new.jpg", "was": "red", "now": "blue"}]
    shown = imgcls("data", "diff", old, new).stdout
    assert all(text in shown for text in ("other label", "blue/new.jpg", "red -> blue"))
    missing = imgcls("data", "diff", old, "nothing", "--json")
    assert json.loads(missing.stdout)["code"] == "dataset_not_found"


def test_nothing_is_deleted_unasked(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tag = answer("data", "add", str(photos))["tag"]
    refused = imgcls("data", "remove", "photos", "--json")
    assert (refused.exit_code, json.loads(refused.stdout)["code"]) == (1, "bad_argument")
    assert imgcls("data", "remove", "photos").exit_code == 1

    # The runner's input is no terminal.
    monkeypatch.setattr("imgcls.console.is_attended", lambda: True)
    for typed, left in (("n", [tag]), ("y", [])):
        result = CliRunner().invoke(app, ["data", "remove", "photos"], input=f"{typed}\n")
        assert f"{tag}: the images in {photos} stay" in result.stderr
        assert f"Delete {tag} for good?" in result.stderr
        assert [one.tag for one in DatasetStore().list()] == left
    assert photos.is_dir()


def test_several_are_removed_only_if_all_of_them_exist(photos: Path) -> None:
    tag = answer("data", "add", str(photos))["tag"]
    refused = imgcls("data", "remove", "photos", "nothing", "--yes", "--json")
    assert json.loads(refused.stdout)["code"] == "dataset_not_found"
    removed = answer("data", "remove", "photos", tag, "--yes")
    assert removed == {"removed": [tag], "left": []}


def test_what_a_job_uses_is_not_removed(photos: Path) -> None:
    tag = answer("data", "add", str(photos))["tag"]
    jobs = jobs_with("endless")
    job = jobs.start(JobRequest(dataset=tag, recipe={"kind": "cnn"}, name="colours"))
    until(jobs, job, "running")
    refused = imgcls("data", "remove", tag, "--yes", "--json")
    assert json.loads(refused.stdout)["code"] == "dataset_in_use"
    assert job.id in json.loads(refused.stdout)["error"]
    Jobs().cancel(job.id)
    assert answer("data", "remove", tag, "--yes")["removed"] == [tag]


def test_what_the_system_refuses_is_told_with_what_to_do(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer("data", "add", photos, "--name", "colours")

    def refused(*arguments: object) -> str:
        result = imgcls(*arguments)
        assert (result.exit_code, "Traceback" in result.output) == (1, False)
        return result.stderr

    told = refused("eda", "colours", "--html", "/sys/report.html")  # where nobody can write
    assert "/sys" in told
    assert "choose another place" in told

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(DatasetStore, "open", no_memory)
    assert "too little memory" in refused("eda", "colours")
