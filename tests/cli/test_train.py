"""`imgcls train`, `eda` and `jobs`: the same jobs as the service's, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from imgcls.cli.train import choose_recipe
from imgcls.errors import BadRecipe
from imgcls.jobs import Jobs
from imgcls.recipes import FeaturesRecipe, NetworkRecipe
from imgcls.recipes.types import BackboneFeatures
from imgcls.registry import Registry
from tests.commands import answer, imgcls
from tests.fakes import class_folders

QUICK = ["--set", "epochs=2", "--set", "network.width=0.5", "--set", "network.dense=16"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "My Photos", per_class=12)


def test_train_makes_a_model_that_predicts(photos: Path, registry: Registry) -> None:
    done = answer("train", photos, *QUICK, "--activate", "--baseline")
    tag = done["card"]["tag"]
    assert tag.startswith("my-photos:")
    assert done["job"]["state"] == "succeeded"
    assert done["card"]["recipe"]["epochs"] == 2
    assert done["card"]["dataset"]["tag"].startswith("my-photos:")
    assert registry.active() == tag
    assert registry.get(tag).baseline
    assert imgcls("predict", photos / "red").exit_code == 0
    (job,) = answer("jobs", "list")["jobs"]
    assert job == answer("jobs", "show", job["id"]) == done["job"]
    assert "log" in answer("jobs", "log", job["id"])
    assert imgcls("jobs", "cancel", job["id"]).exit_code == 1


def test_a_stored_dataset_is_trained_on_by_its_tag_and_metrics_are_shown(photos: Path) -> None:
    profile = answer("eda", photos)
    result = imgcls("train", profile["tag"], "--name", "colours", *QUICK)
    assert result.exit_code == 0, result.output
    assert all(text in result.stdout for text in ("accuracy", "log-loss", "green", "registered"))
    assert "imgcls models set colours:" in result.stderr


def test_a_group_each_makes_a_model_each(photos: Path, registry: Registry) -> None:
    for number, path in enumerate(sorted(photos.rglob("*.jpg"))):
        path.rename(path.with_name(f"{path.stem}_{('indoors', 'Out side')[number % 2]}.jpg"))
    options = ["--pattern", "{id}_{place}", "--group", "place", "--name", "colours"]
    done = answer("train", photos, *options, *QUICK)["models"]
    names = [made["card"]["tag"].partition(":")[0] for made in done]
    assert names == ["colours-out-side", "colours-indoors"]
    lineage = registry.get(done[0]["card"]["tag"]).dataset
    assert (lineage.group, lineage.pattern, lineage.images) == (
        "place==Out side", "{id}_{place}", 18,
    )  # fmt: skip
    clash = imgcls("train", photos, *options, "--activate")
    assert clash.exit_code == 2


def test_groups_too_small_to_train_on_are_refused_before_a_job_starts(photos: Path) -> None:
    for path in sorted(photos.rglob("*.jpg")):
        path.rename(path.with_name(f"{path.stem}_{'b' if path.stem == '000' else 'a'}.jpg"))
    result = imgcls("train", photos, "--pattern", "{id}_{g}", "--group", "g")
    assert result.exit_code == 1
    assert "no readable image of the group b of" in result.stderr
    assert Jobs().all() == []


def test_eda_of_targets_shows_their_histogram(photos: Path) -> None:
    for number, path in enumerate(sorted(photos.rglob("*.jpg"))):
        path.rename(path.with_name(f"{path.stem}_{number / 4}.jpg"))
    options = ["--pattern", "{id}_{rate}", "--target", "rate", "--where", "rate>=1"]
    found = answer("eda", photos, *options)
    assert (found["labels"], found["target"]["images"], found["target"]["min"]) == ([], 32, 1)
    assert "always saying the median" in imgcls("eda", photos, *options).stdout
    assert answer("eda", "my-photos")["tag"] == found["tag"]
    changed = imgcls("eda", "my-photos", "--target", "id")
    assert changed.exit_code == 1
    assert "keeps the pattern" in changed.stderr


def test_a_table_is_data_too(photos: Path) -> None:
    paths = sorted(path.relative_to(photos) for path in photos.rglob("*.jpg"))
    lines = [f"{path},{number / 2}" for number, path in enumerate(paths)]
    (photos / "Scores.csv").write_text("\n".join(["path,target", *lines]))
    found = answer("eda", photos / "Scores.csv")
    assert found["tag"].startswith("scores:")
    assert found["target"]["max"] == 17.5


def test_a_training_that_fails_says_why_and_where_its_log_is(photos: Path) -> None:
    result = imgcls("train", photos, "--recipe", "linear-probe", "--set", "features.name=nonsense")
    assert result.exit_code == 1
    assert "nonsense" in result.stderr
    assert "log.txt" in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("error: ")
    failed = imgcls("train", photos, "--set", "epochs=10000", "--time-limit", "1", "--json")
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["code"] == "time_limit"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/nowhere"], "no file or folder"),
        (["nowhere"], "no file or folder 'nowhere'. There is no dataset"),
        ([".", "--set", "learning_rate=1"], "learning_rate"),
        ([".", "--set", "epoch=3"], "did you mean epochs?"),
        ([".", "--set", "output_range=[5,1]"], "not valid: output_range must rise"),
        ([".", "--set", "augment.rotate=3"], "did you mean augment.rotation?"),
        ([".", "--set", "augment={}", "--set", "augment.rotation=3"], "holds the other"),
        ([".", "--set", "epochs"], "key=value"),
        ([".", "--recipe", "nonsense"], "linear-probe"),
        ([".", "--config", "nowhere.yaml"], "nowhere.yaml"),
        ([".", "--name", "No Name"], "model name"),
        ([".", "--pattern", "{id"], "{id}_{gender}_{rate}"),
        ([".", "--target", "rate"], "no field 'rate'"),
        ([".", "--pattern", "{id}", "--where", "votes>=5"], "no field 'votes'; there are: id"),
        ([".", "--table", "nowhere.csv"], "nowhere.csv cannot be read"),
    ],
)
def test_mistakes_are_refused_before_a_job_starts(
    arguments: list[str], words: str, home: Path
) -> None:
    result = imgcls("train", *arguments)
    assert result.exit_code == 1
    assert words in result.stderr
    assert Jobs().all() == []


def test_weights_become_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({}, "w.pth")
    recipe = choose_recipe("linear-probe", None, ["features.weights=w.pth"])
    assert isinstance(recipe, FeaturesRecipe)
    assert isinstance(recipe.features, BackboneFeatures)
    assert recipe.features.weights == str(tmp_path.resolve() / "w.pth")
    assert choose_recipe("linear-probe", None, []).model_dump()["features"]["weights"] == "imagenet"
    with pytest.raises(BadRecipe, match=r"no weights file .*other\.pth"):
        choose_recipe("linear-probe", None, ["features.weights=other.pth"])


def test_a_recipe_file_is_changed_by_set(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("preset: cnn\nepochs: 7\naugment: {rotation: 5}\n")
    recipe = choose_recipe(None, file, ["augment.crop=0.1", "seed=3"])
    assert isinstance(recipe, NetworkRecipe)
    assert recipe.augment is not None
    assert (recipe.epochs, recipe.seed) == (7, 3)
    assert (recipe.augment.rotation, recipe.augment.crop) == (5, 0.1)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_train_stops_its_job(photos: Path, sign: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "imgcls.cli", "train", photos, "--set", "epochs=10000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        # A shell that runs the tests in the background has its children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (jobs := Jobs().all()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(sign)
    assert process.wait(30) == (130 if sign == signal.SIGINT else 143)
    assert Jobs().get(jobs[0].id).state == "cancelled"


def test_a_resumed_job_is_named_instead_of_data(photos: Path) -> None:
    assert imgcls("train").exit_code == 2
    unknown = "20261121-083000-123456-a1b2"
    assert imgcls("train", photos, "--resume", unknown).exit_code == 2
    assert imgcls("train", "--resume", unknown, "--recipe", "cnn").exit_code == 2
    done = imgcls("train", "--resume", unknown)
    assert done.exit_code == 1
    assert "no job" in done.stderr


def test_eda_shows_what_is_in_the_data_and_what_is_wrong(photos: Path) -> None:
    (photos / "red" / "broken.jpg").write_bytes(b"no image")
    (photos / "green" / "again.jpg").write_bytes((photos / "red" / "000.jpg").read_bytes())
    found = answer("eda", photos)
    assert found["labels"] == ["blue", "green", "red"]
    assert found["overall"]["images"] == 37
    assert found["unreadable"]["total"] == 1
    shown = imgcls("eda", photos).stdout
    assert all(text in shown for text in (found["tag"], "green", "28 x 24", "red/broken.jpg"))
    assert "1 cross" in shown or "1 classes" in shown


def test_an_empty_home_has_no_jobs_and_unknown_ones_are_refused() -> None:
    assert answer("jobs", "list") == {"jobs": []}
    for command in ("show", "cancel", "log"):
        assert imgcls("jobs", command, "20261121-083000-123456-a1b2").exit_code == 1


def test_too_few_images_are_refused_before_a_job_starts(tmp_path: Path) -> None:
    for number, label in enumerate(("cat", "dog")):
        (tmp_path / "few" / label).mkdir(parents=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "few" / label / "1.png")
    result = imgcls("train", tmp_path / "few")
    assert result.exit_code == 1
    assert "three different images of each class" in result.stderr
    assert Jobs().all() == []
