"""`imgcls models`, `recipes` and the root: tables, JSON, refusals and exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from imgcls.card import GRAPH_FILE
from imgcls.cli.app import app
from imgcls.recipes import load_recipe, read_recipe_file
from imgcls.registry import Registry
from tests.commands import answer, imgcls
from tests.fakes import tiny_model, tiny_regression


@pytest.fixture
def tag(registry: Registry, tmp_path: Path) -> str:
    return tiny_model(tmp_path / "model", registry, "tiny")


def test_an_empty_store_lists_nothing_and_says_what_to_do() -> None:
    assert answer("models", "list") == {"active": None, "models": []}
    result = imgcls("models", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "imgcls train" in result.stderr


def test_set_rollback_and_unset_move_the_pointer(
    registry: Registry, tag: str, tmp_path: Path
) -> None:
    second = tiny_model(tmp_path / "second", registry, "second")
    assert answer("models", "set", "tiny") == {"active": tag, "previous": None}
    assert answer("models", "set", second) == {"active": second, "previous": tag}
    assert answer("models", "rollback") == {"active": tag, "previous": second}
    assert answer("models", "unset") == {"active": None, "previous": tag}
    assert registry.active() is None
    assert answer("models", "rollback")["active"] == tag


def test_a_model_that_was_tampered_with_is_not_set(
    registry: Registry, tag: str, tmp_path: Path
) -> None:
    bad = tiny_model(tmp_path / "bad", registry, "bad")
    imgcls("models", "set", tag)
    graph = registry.folder(bad) / GRAPH_FILE
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    result = imgcls("models", "set", bad)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert registry.active() == tag


def test_the_list_marks_the_active_model(tag: str) -> None:
    imgcls("models", "set", tag)
    (line,) = (line for line in imgcls("models", "list").stdout.splitlines() if tag in line)
    assert line.split()[0] == "*"
    assert answer("models", "list")["models"][0]["active"] is True


def test_show_prints_the_card(registry: Registry, tag: str) -> None:
    assert answer("models", "show", "tiny") == json.loads(registry.get(tag).model_dump_json())
    shown = imgcls("models", "show", tag).stdout
    assert all(text in shown for text in (tag, "red, green, blue", "32 x 32", "accuracy"))


def test_a_regression_is_listed_and_shown_by_its_target(
    registry: Registry, tag: str, tmp_path: Path
) -> None:
    scores = tiny_regression(tmp_path / "r", registry)
    listed = imgcls("models", "list").stdout
    assert "brightness, 0 to 10" in listed
    assert "3 classes" in listed
    assert "mae 0.4000" in listed
    assert answer("models", "list", "bright")["models"][0]["output_range"] == [0, 10]
    shown = imgcls("models", "show", scores).stdout
    for text in ("brightness, 0 to 10", "+-1.2, holds 90%", "spearman", "2.5000"):
        assert text in shown
    assert "classes" not in shown


def test_what_a_model_abstains_from_is_shown(registry: Registry, tag: str, tmp_path: Path) -> None:
    careful = tiny_model(tmp_path / "c", registry, "careful", abstain_below=0.75)
    assert "below 0.75" in imgcls("models", "show", careful).stdout
    assert "below" not in imgcls("models", "show", tag).stdout


def test_remove_refuses_the_active_and_protects_baselines(
    registry: Registry, tag: str, tmp_path: Path
) -> None:
    baseline = tiny_model(tmp_path / "baseline", registry, "base", baseline=True)
    spare = tiny_model(tmp_path / "spare", registry, "spare")
    imgcls("models", "set", tag)
    assert imgcls("models", "remove", tag).exit_code == 1
    assert imgcls("models", "remove", baseline).exit_code == 1
    assert imgcls("models", "remove", spare, "nothing").exit_code == 1
    assert len(registry.cards()) == 3
    assert answer("models", "remove", "--all") == {"removed": [spare], "left": [baseline, tag]}
    assert answer("models", "remove", baseline, "base", "--force")["removed"] == [baseline]


def test_an_exported_model_comes_back(registry: Registry, tag: str, tmp_path: Path) -> None:
    path = answer("models", "export", tag, str(tmp_path))["path"]
    imgcls("models", "remove", tag)
    assert answer("models", "import", path) == {"tag": tag}
    assert imgcls("models", "import", path).exit_code == 1
    assert imgcls("models", "set", tag).exit_code == 0


def test_refusals_are_one_line_or_json_and_exit_1() -> None:
    result = imgcls("models", "show", "nothing")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: There is no model 'nothing'")
    assert len(result.stderr.splitlines()) == 1
    result = imgcls("models", "show", "nothing", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["code"] == "model_not_found"


@pytest.mark.parametrize(
    "wrong",
    [
        ["nonsense"],
        ["models", "set"],
        ["models", "remove"],
        ["models", "remove", "--all", "tiny"],
        ["predict", "x.jpg", "--batch", "0"],
        ["train", "x", "--recipe", "cnn", "--config", "y.yaml"],
        ["serve", "--port", "70000"],
    ],
)
def test_wrong_usage_exits_2(wrong: list[str]) -> None:
    assert imgcls(*wrong).exit_code == 2


def test_a_setting_that_cannot_be_cast_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGCLS_THREADS", "many")
    result = imgcls("models", "list")
    assert result.exit_code == 1
    assert "IMGCLS_THREADS" in result.stderr


def test_recipes_lists_names_and_prints_yaml_that_reads_back(tmp_path: Path) -> None:
    names = [recipe["name"] for recipe in answer("recipes")["recipes"]]
    assert {"cnn", "linear-probe"} <= set(names)
    for name in names:
        assert name in imgcls("recipes").stdout
        file = tmp_path / f"{name}.yaml"
        file.write_text(imgcls("recipes", name).stdout)
        assert load_recipe(read_recipe_file(file)) == load_recipe(name)
        assert answer("recipes", name)["preset"] == name
    assert imgcls("recipes", "nonsense").exit_code == 1


def test_the_version_is_printed() -> None:
    assert imgcls("--version").stdout.startswith("imgcls 0.")


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    for name, command in group.commands.items():
        nested = hasattr(command, "commands")
        found += commands(command, (*path, name)) if nested else [((*path, name), command)]
    return found


def test_every_command_has_help_with_an_example_and_takes_json() -> None:
    import typer

    for path, command in commands(typer.main.get_command(app)):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*path, "--help"])
        assert result.exit_code == 0, path
        assert "--json" in result.stdout, path
        assert f"imgcls {' '.join(path)}" in result.stdout.replace("Usage", "", 1), path
        shown = {line.strip() for line in result.stdout.splitlines()}
        written = [line.strip() for line in command.callback.__doc__.splitlines()]
        examples = [line for line in written if line.startswith(("imgcls ", "curl "))]
        assert examples, path
        assert shown >= set(examples), path  # a line each, with every underscore


def test_a_report_is_shown_and_written_as_a_page(tag: str, tmp_path: Path) -> None:
    assert "accuracy" in imgcls("models", "report", "tiny").stdout
    target = tmp_path / "tiny.html"
    assert answer("models", "report", "tiny", "--html", str(target))["html"] == str(target)
    assert target.read_text().startswith("<!doctype html>")
    assert tag in target.read_text()
    missing = imgcls("models", "report", "tiny", "--html", str(tmp_path / "no" / "where.html"))
    assert missing.exit_code == 1
    assert missing.stderr.startswith("error: ")
