"""The engine and its gate, for a regression: what the card says is what the graph must do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgcls import images
from imgcls.card import GOLDEN_DIR, GOLDEN_FILE, GRAPH_FILE, ModelCard, graph_sha256
from imgcls.engine import Engine, gate
from imgcls.errors import BadModel, GateFailed
from imgcls.registry import Registry
from tests.fakes import jpeg, tiny_graph, tiny_model, tiny_regression, tiny_score_graph


@pytest.fixture
def folder(registry: Registry, tmp_path: Path) -> Path:
    return registry.folder(tiny_regression(tmp_path / "m", registry))


def pixels(engine: Engine, *colours: str) -> images.Pixels:
    return np.stack([images.load(jpeg(c), engine.card.preprocessing) for c in colours])


def change_card(folder: Path, **fields: Any) -> None:
    ModelCard.load(folder).model_copy(update=fields).save(folder)


def change_goldens(folder: Path, number: int, **fields: Any) -> None:
    path = folder / GOLDEN_DIR / GOLDEN_FILE
    goldens = json.loads(path.read_text())
    goldens["images"][number] |= fields
    path.write_text(json.dumps(goldens))


def test_scores_come_one_an_image_within_the_range(folder: Path) -> None:
    engine = gate(folder, max_batch=4)
    shown = pixels(engine, "black", "grey", "white")
    answers, embedding = engine.run(shown)
    assert (answers.dtype, answers.shape, embedding.shape) == (np.float32, (3,), (3, 3))
    assert answers == pytest.approx([0, 5, 10], abs=0.1)
    assert answers[[0, 2]].tolist() == [0, 10]
    assert engine.answers(shown).tolist() == answers.tolist()
    assert (engine.answers(shown[:0]).shape, engine.run(shown[:0])[1].shape) == ((0,), (0, 3))


def test_a_graph_of_the_other_task_is_refused(registry: Registry, tmp_path: Path) -> None:
    scores = registry.folder(tiny_regression(tmp_path / "r", registry))
    classes = registry.folder(tiny_model(tmp_path / "c", registry))
    graph, other = scores / GRAPH_FILE, classes / GRAPH_FILE
    tiny_graph(graph, 32, (0, 0, 0))
    tiny_score_graph(other, 32, 0, 10, 0)
    for path, wanted in ((graph, "score"), (other, "probabilities")):
        change_card(path.parent, graph_sha256=graph_sha256(path))
        with pytest.raises(BadModel, match=f"give `{wanted}` first"):
            gate(path.parent)


@pytest.mark.parametrize(
    ("difference", "passes"), [(0.009, True), (0.011, False), (-5, False), (float("nan"), False)]
)
def test_golden_scores_must_hold_within_a_thousandth_of_the_range(
    folder: Path, difference: float, passes: bool
) -> None:
    goldens = json.loads((folder / GOLDEN_DIR / GOLDEN_FILE).read_text())["images"]
    change_goldens(folder, 0, score=goldens[0]["score"] + difference)
    if passes:
        gate(folder)
    else:
        with pytest.raises(GateFailed, match="golden"):
            gate(folder)


def test_without_a_range_the_largest_score_is_what_the_tolerance_is_a_share_of(
    folder: Path,
) -> None:
    change_card(folder, output_range=None)
    gate(folder)
    change_goldens(folder, 0, score=4.0)
    with pytest.raises(GateFailed, match="golden answers"):
        gate(folder)


def test_a_graph_that_leaves_the_range_of_its_card_is_refused(folder: Path) -> None:
    change_card(folder, output_range=(0.0, 1.0))
    with pytest.raises(GateFailed, match=r"none lies outside 0 to 1"):
        gate(folder)


@pytest.mark.parametrize(
    "answer", [{"probabilities": [0.5, 0.5]}, {"score": None}, {"score": "high"}]
)
def test_a_golden_image_has_one_answer_of_the_right_kind(
    folder: Path, answer: dict[str, Any]
) -> None:
    change_goldens(folder, 3, **answer)
    with pytest.raises(GateFailed):
        gate(folder)


@pytest.mark.parametrize(
    "wrong",
    [
        {"output_range": (1.0, 0.0)},
        {"output_range": (0.0, float("inf"))},
        {"output_range": (float("nan"), 1.0)},
        {"abstain_below": 0.5},
        {"labels": ["a", "b"]},
    ],
)
def test_a_card_that_contradicts_itself_is_none(folder: Path, wrong: dict[str, Any]) -> None:
    told = ModelCard.load(folder).model_dump()
    with pytest.raises(ValueError, match="validation error"):
        ModelCard.model_validate(told | wrong)
