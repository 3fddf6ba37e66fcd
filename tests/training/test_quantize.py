"""8-bit graphs: kept where they are quicker and as accurate as was asked, and measured honestly."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from imgcls.card import GRAPH_FILE, Preprocessing, graph_sha256
from imgcls.data import Dataset
from imgcls.engine import gate
from imgcls.recipes import FeaturesRecipe
from imgcls.registry import Registry
from training import quantize as module
from training import train
from training.evaluate import measure
from training.export import Graph, write_graph
from training.loader import load_pixels
from training.networks import cnn
from training.quantize import quantize


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is quicker depends on the processor; here the 8-bit graph always is."""
    monkeypatch.setattr(module, "_speedup", lambda full, short, pixels: 2.0)


def is_int8(path: Path) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = cnn(32, 3, width=0.5, dense=64, dropout=0.0)
    write_graph(network, Preprocessing(height=32, width=32), tmp_path / GRAPH_FILE)
    return tmp_path / GRAPH_FILE


PIXELS = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


def test_an_8_bit_graph_answers_nearly_as_the_other_and_replaces_it(
    graph: Path, quick: None
) -> None:
    before, _ = Graph(graph).run(PIXELS)
    found = quantize(graph, PIXELS, before.argmax(1), largest_loss=0.2)
    assert found.kept
    assert (found.images, found.accuracy_fp32, found.speedup) == (40, 1.0, 2.0)
    assert is_int8(graph)
    after, embedding = Graph(graph).run(PIXELS)
    assert found.accuracy == (after.argmax(1) == before.argmax(1)).mean()
    assert 0 < np.abs(after - before).max() < 0.1
    assert embedding.shape == (40, 64)
    assert [path.name for path in graph.parent.iterdir()] == [GRAPH_FILE]


def test_what_is_slower_or_loses_too_much_is_not_kept(
    graph: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    before = graph_sha256(graph)
    targets = Graph(graph).run(PIXELS)[0].argmax(1)
    assert not quantize(graph, PIXELS, targets, largest_loss=-1.0).kept
    monkeypatch.setattr(module, "_speedup", lambda full, short, pixels: 0.9)
    assert not quantize(graph, PIXELS, targets, largest_loss=1.0).kept
    assert graph_sha256(graph) == before


def test_the_card_states_what_the_8_bit_graph_reaches(
    dataset: Dataset, small_probe: FeaturesRecipe, registry: Registry, quick: None
) -> None:
    stages: list[str] = []
    card = train(
        dataset,
        small_probe.model_copy(update={"int8": 1.0}),
        name="shapes",
        registry=registry,
        on_event=lambda stage, **told: stages.append(stage),
    )
    assert "quantizing" in stages
    assert card.quantization is not None
    assert card.quantization.kept
    folder = registry.folder(card.tag)
    assert is_int8(folder / GRAPH_FILE)
    gate(folder)
    rows = dataset.rows("test")
    answers, _ = Graph(folder / GRAPH_FILE).run(load_pixels(dataset, rows, card.preprocessing))
    again = measure(dataset.labels, dataset.targets(rows), answers)
    assert card.metrics.accuracy == again.accuracy
    assert card.metrics.log_loss == pytest.approx(again.log_loss, abs=1e-5)
