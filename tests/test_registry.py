"""The registry: models enter and leave whole, the pointer moves and can move back."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imgcls.card import CARD_FILE, GRAPH_FILE
from imgcls.engine import Engine, gate
from imgcls.errors import (
    BadArgument,
    BadModel,
    Conflict,
    GateFailed,
    ModelInUse,
    ModelNotFound,
)
from imgcls.registry import Registry
from imgcls.settings import bentoml_home, get_settings
from tests.fakes import left_behind, tiny_model


def test_an_empty_store_is_a_normal_state(registry: Registry) -> None:
    assert registry.cards() == []
    assert registry.active() is None
    assert registry.stamp() is None
    assert registry.unset() is None
    assert registry.remove_all() == []
    with pytest.raises(ModelNotFound, match="empty"):
        registry.get("pets")
    with pytest.raises(Conflict):
        registry.before()


def test_a_registered_model_is_a_bentoml_model(registry: Registry, tmp_path: Path) -> None:
    tag = tiny_model(tmp_path / "a", registry, "pets")
    for command in (["get", tag], ["list"]):
        shown = subprocess.run(
            [sys.executable, "-m", "bentoml", "models", *command],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "pets" in shown
    shown = subprocess.run(
        [sys.executable, "-m", "bentoml", "models", "get", tag, "-o", "yaml"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for word in (
        "task",
        "classes",
        "hyperparameters",
        "accuracy",
        "colours:0123456789ab",
        "recipe",
    ):
        assert word in shown


def test_what_a_killed_process_left_beside_the_store_is_removed(
    registry: Registry, tmp_path: Path
) -> None:
    left = left_behind(registry.store.parent, ".imgcls-")
    tag = tiny_model(tmp_path / "a", registry, "pets")
    assert not left.exists()
    left = left_behind(registry.store.parent, ".imgcls-")
    registry.remove(tag)
    assert not left.exists()


def test_names_resolve_to_the_newest_model_by_time(registry: Registry, tmp_path: Path) -> None:
    tags = [tiny_model(tmp_path / str(n), registry, "pets") for n in range(3)]
    tiny_model(tmp_path / "other", registry, "pets2")
    assert registry.get("pets").tag == tags[-1]
    assert registry.get("pets:latest").tag == tags[-1]
    assert [card.tag for card in registry.cards("pets")] == tags[::-1]


@pytest.mark.parametrize(
    "tag", ["../x", "a/b", "A", "", "a:../b", "a:*", "a:" + "b" * 70, "é", "."]
)
def test_hostile_tags_are_refused(registry: Registry, tag: str) -> None:
    with pytest.raises(BadArgument):
        registry.get(tag)


def test_half_a_model_in_the_store_disturbs_nobody(registry: Registry, tmp_path: Path) -> None:
    tag = tiny_model(tmp_path / "a", registry, "pets")
    (registry.store / "pets" / "half").mkdir()
    (registry.store / "broken" / "1").mkdir(parents=True)
    (registry.store / "broken" / "1" / "card.json").write_text("{")
    assert [card.tag for card in registry.cards()] == [tag]
    assert registry.get("pets").tag == tag


def test_rollback_goes_back_model_by_model(registry: Registry, tmp_path: Path) -> None:
    a, b, c = (tiny_model(tmp_path / str(n), registry) for n in range(3))
    for tag in (a, b, c):
        registry.point(tag)
    assert registry.before() == b
    registry.step_back(b)
    assert registry.active() == b
    assert registry.before() == a
    registry.step_back(a)
    assert registry.active() == a
    with pytest.raises(Conflict):
        registry.before()
    actions = [(line["action"], line["tag"]) for line in registry.promotions()]
    assert actions == [("set", a), ("set", b), ("set", c), ("rollback", b), ("rollback", a)]


def test_rollback_passes_over_removed_models_and_follows_unset(
    registry: Registry, tmp_path: Path
) -> None:
    a, b, c = (tiny_model(tmp_path / str(n), registry) for n in range(3))
    for tag in (a, b, c):
        registry.point(tag)
    registry.remove(b)
    assert registry.before() == a
    assert registry.unset() == c
    assert registry.active() is None
    assert registry.before() == c


def test_the_stamp_changes_with_the_pointer(registry: Registry, tmp_path: Path) -> None:
    a, b = (tiny_model(tmp_path / str(n), registry) for n in range(2))
    stamps = [registry.stamp()]
    for tag in (a, b, a):
        registry.point(tag)
        stamps.append(registry.stamp())
    assert len(set(stamps)) == 4


def test_active_models_and_baselines_are_not_removed(registry: Registry, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", registry, baseline=True)
    active = tiny_model(tmp_path / "active", registry)
    spare = tiny_model(tmp_path / "spare", registry)
    registry.point(active)
    for tag in (base, active):
        with pytest.raises(ModelInUse):
            registry.remove(tag)
    with pytest.raises(ModelInUse):
        registry.remove(active, force=True)
    assert registry.remove_all() == [spare]
    assert {card.tag for card in registry.cards()} == {base, active}
    assert registry.remove(base, force=True) == base


def test_a_removed_name_leaves_nothing_behind(registry: Registry, tmp_path: Path) -> None:
    tag = tiny_model(tmp_path / "a", registry, "pets")
    registry.remove(tag)
    assert not (registry.store / "pets").exists()
    assert [p.name for p in registry.store.parent.iterdir() if p.name.startswith(".imgcls")] == []


def test_a_tag_is_registered_once(registry: Registry, tmp_path: Path) -> None:
    tag = tiny_model(tmp_path / "a", registry, "pets")
    tiny_model(tmp_path / "b", registry, "pets2")
    folder, card = tmp_path / "copy", registry.get(tag)
    folder.mkdir()
    (folder / GRAPH_FILE).write_bytes(b"")
    with pytest.raises(Conflict):
        registry.register(folder, card)


def test_export_and_import_round_trip(registry: Registry, tmp_path: Path) -> None:
    tag = tiny_model(tmp_path / "a", registry, "pets")
    card = registry.get(tag)
    file = registry.export(tag, tmp_path / "out.bentomodel")
    with pytest.raises(Conflict):
        registry.import_(file)
    registry.remove(tag)
    assert registry.import_(file) == tag
    assert registry.get(tag) == card
    gate(registry.folder(tag))
    (tmp_path / "text.bentomodel").write_text("no archive")
    with pytest.raises(BadModel):
        registry.import_(tmp_path / "text.bentomodel")


def test_relative_paths_lie_in_the_current_folder(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = tiny_model(tmp_path / "a", registry, "pets")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file = registry.export(tag, Path("."))
    assert file.parent == tmp_path / "here"
    registry.remove(tag)
    assert registry.import_(Path(file.name)) == tag
    with pytest.raises(BadModel, match="no file"):
        registry.import_(Path("nothing.bentomodel"))


def test_rollback_never_names_a_model_that_is_gone(registry: Registry, tmp_path: Path) -> None:
    a, b = (tiny_model(tmp_path / str(n), registry) for n in range(2))
    registry.point(a)
    registry.point(b)
    registry.remove(a)
    with pytest.raises(ModelNotFound):
        registry.step_back(a)
    assert registry.active() == b


def test_the_gate_refuses_a_card_that_does_not_fit(registry: Registry, tmp_path: Path) -> None:
    tag = tiny_model(tmp_path / "a", registry)
    registry.get(tag).model_copy(update={"labels": ["red", "green"]}).save(registry.folder(tag))
    with pytest.raises(GateFailed):
        gate(registry.folder(tag))


def test_the_gate_refuses_a_tampered_graph(registry: Registry, tmp_path: Path) -> None:
    tag = tiny_model(tmp_path / "a", registry)
    other = tiny_model(tmp_path / "b", registry, bias=(0.0, 9.0, 0.0))
    gate(registry.folder(tag))
    graph = registry.folder(tag) / GRAPH_FILE
    graph.write_bytes((registry.folder(other) / GRAPH_FILE).read_bytes())
    with pytest.raises(BadModel, match="hash"):
        gate(registry.folder(tag))
    # Even with a card that fits the other graph, the golden answers do not.
    card = registry.get(tag).model_copy(update={"graph_sha256": registry.get(other).graph_sha256})
    card.save(registry.folder(tag))
    with pytest.raises(GateFailed, match="golden"):
        gate(registry.folder(tag))


def test_the_gate_needs_golden_images(registry: Registry, tmp_path: Path) -> None:
    tag = tiny_model(tmp_path / "a", registry)
    (registry.folder(tag) / "golden" / "03.jpg").unlink()
    with pytest.raises(GateFailed):
        gate(registry.folder(tag))
    (registry.folder(tag) / GRAPH_FILE).unlink()
    with pytest.raises(BadModel):
        Engine.load(registry.folder(tag))


def test_a_copied_model_does_not_pass_for_another(registry: Registry, tmp_path: Path) -> None:
    tag = tiny_model(tmp_path / "one", registry)
    name, _, version = tag.partition(":")
    shutil.copytree(registry.store / name / version, registry.store / name / "copy")
    assert [card.tag for card in registry.cards()] == [tag]
    with pytest.raises(BadModel, match="was copied"):
        registry.get(f"{name}:copy")


def test_a_list_of_an_impossible_name_is_refused(registry: Registry) -> None:
    with pytest.raises(BadArgument, match="model name"):
        registry.cards("A B")


def test_a_damaged_model_disturbs_no_list_and_can_be_removed(
    registry: Registry, tmp_path: Path
) -> None:
    whole, naive, cut = (tiny_model(tmp_path / name, registry, name) for name in ("a", "b", "c"))
    card = registry.folder(naive) / CARD_FILE
    told = json.loads(card.read_text()) | {"created_at": "2026-01-01T00:00:00"}
    card.write_text(json.dumps(told))
    (registry.folder(cut) / CARD_FILE).write_text("{")
    assert [card.tag for card in registry.cards()] == [whole]
    with pytest.raises(BadModel, match=r"created_at") as refused:
        registry.get(naive)
    assert "http" not in refused.value.message
    assert registry.remove(cut) == cut
    assert registry.remove(naive) == naive


@pytest.mark.parametrize(
    "change",
    [{"threshold": 0.0}, {"labels": ["a", "a", "b"]}, {"schema_version": 99}, {"embedding_dim": 0}],
)
def test_a_card_that_contradicts_itself_is_refused(
    registry: Registry, tmp_path: Path, change: dict[str, object]
) -> None:
    tag = tiny_model(tmp_path / "a", registry)
    card = registry.folder(tag) / CARD_FILE
    card.write_text(json.dumps(json.loads(card.read_text()) | change))
    with pytest.raises(BadModel):
        gate(registry.store / Path(tag.replace(":", "/")))


def test_an_empty_home_is_not_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGCLS_HOME", "")
    get_settings.cache_clear()
    assert get_settings().home == bentoml_home() / "imgcls"
