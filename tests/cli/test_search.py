"""`imgcls search`, `imgcls leaderboard` and the service's `/search`: one kind of job."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from imgcls.jobs import Jobs
from imgcls.registry import Registry
from tests.commands import imgcls
from tests.conftest import Server
from tests.fakes import class_folders


def test_a_search_is_a_job_that_makes_a_model_and_a_leaderboard(
    tmp_path: Path, registry: Registry
) -> None:
    photos = class_folders(tmp_path / "photos", per_class=12)
    searched = imgcls("search", photos, "--trials", "1", "--recipe", "cnn", "--activate")
    assert searched.exit_code == 0, searched.output
    tag = registry.active()
    assert tag is not None
    assert tag.startswith("photos:")
    assert f"registered {tag}" in searched.stdout
    assert "accuracy on" in searched.stdout
    shown = imgcls("leaderboard", "photos", "--json")
    board: dict[str, Any] = json.loads(shown.stdout)
    assert board["tag"] == tag
    assert board["trials"][0]["value"] is not None
    assert "cnn-0" in imgcls("leaderboard", "photos").stdout
    (job,) = Jobs().all()
    assert (job.recipe, job.state, job.tag) == ("search", "succeeded", tag)
    (photos / "red" / "000.jpg").unlink()
    other = imgcls("search", photos, "--budget", "25s")
    assert other.exit_code == 1
    assert "--fresh" in other.stderr or "afresh" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "soon"], "10m"),
        (["--budget", "1s"], "10 seconds"),
        (["--recipe", "nonsense"], "hog-svc"),
        (["--track", "nonsense"], "mlflow"),
        (["--name", "No Name"], "model name"),
    ],
)
def test_mistakes_are_refused_before_a_job_starts(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    photos = class_folders(tmp_path / "photos", per_class=6)
    result = imgcls("search", photos, *arguments)
    assert result.exit_code == 1
    assert words in result.stderr
    assert Jobs().all() == []
    assert imgcls("leaderboard", "photos").exit_code == 1


def test_a_search_over_http_is_a_job(server: Server, tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", per_class=6)
    with server.client() as client, httpx.Client(base_url=server.url) as http:
        tag = client.upload(photos).tag
        job = client.search(tag, "found", 60, recipes=["cnn"])
        assert (job.recipe, job.name) == ("search", "found")
        assert client.cancel(job.id).state == "cancelled"
        for body, status, code in (
            ({"dataset": tag, "name": "found", "budget": 1}, 400, "bad_argument"),
            ({"dataset": tag, "name": "found", "recipes": ["x"]}, 400, "bad_recipe"),
            ({"dataset": tag, "name": "found", "track": ["x"]}, 400, "bad_argument"),
            ({"dataset": "nothing", "name": "found"}, 404, "dataset_not_found"),
        ):
            answer = http.post("/search", json=body)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
        answer = http.post("/leaderboard", json={"name": "nothing"})
        assert (answer.status_code, answer.json()["code"]) == (404, "search_not_found")
