"""The whole pipeline on small images: what is registered, repeatable, served and reported."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imgcls import images
from imgcls.card import GOLDEN_DIR, GRAPH_FILE, GoldenSet
from imgcls.data import Dataset, open_dataset
from imgcls.drift import MIN_REFERENCE, Reference
from imgcls.engine import Engine
from imgcls.errors import BadDataset, BadModel, BadRecipe, GateFailed
from imgcls.recipes import FeaturesRecipe, NetworkRecipe, load_recipe
from imgcls.registry import Registry
from tests.fakes import left_behind
from training import train
from training.networks import cnn


def figures(card: Any) -> tuple[Any, ...]:
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in card.history]
    return card.metrics, history, card.parity


def test_the_same_seed_gives_the_same_metrics_and_another_seed_others(
    dataset: Dataset, small_cnn: NetworkRecipe
) -> None:
    first = train(dataset, small_cnn, name="shapes")
    torch.rand(3)  # what other code draws must not matter
    assert figures(train(dataset, small_cnn, name="shapes")) == figures(first)
    other = small_cnn.model_copy(update={"seed": 1})
    assert train(dataset, other, name="shapes").history[0] != first.history[0]


def test_a_trained_model_is_registered_with_a_card_that_describes_it(
    dataset: Dataset, registry: Registry, small_cnn: NetworkRecipe
) -> None:
    events: list[tuple[str, dict[str, Any]]] = []

    def listen(stage: str, **said: Any) -> None:
        events.append((stage, said))

    card = train(
        dataset, small_cnn, name="shapes", registry=registry, on_event=listen, baseline=True
    )
    assert registry.get(card.tag) == card
    assert card.baseline
    assert card.labels == ["blue", "green", "red"]
    assert card.hyperparameters["optimizer"]["lr"] == 0.01
    assert card.recipe_name == "cnn"
    assert card.dataset == dataset.lineage()
    assert card.metrics.images == len(dataset.rows("test"))
    assert card.parity <= 1e-4
    assert card.threshold is None
    assert {"python", "torch", "torchvision", "onnx", "onnxruntime", "numpy"} <= set(card.versions)
    assert set(card.history[0]) == {
        "epoch", "train_loss", "val_loss", "val_accuracy", "lr", "seconds",
    }  # fmt: skip
    stages = list(dict.fromkeys(stage for stage, _ in events))
    assert stages == ["loading", "training", "evaluating", "exporting", "registering", "done"]
    assert all(0 <= said["progress"] <= 1 for _, said in events if "progress" in said)
    assert [said["epoch"] for s, said in events if s == "training" and said.get("metrics")] == [
        1, 2, 3,
    ]  # fmt: skip


def test_a_card_whose_labels_were_swapped_is_refused(
    dataset: Dataset, registry: Registry, small_cnn: NetworkRecipe
) -> None:
    card = train(dataset, small_cnn, name="shapes", registry=registry)
    swapped = card.model_copy(update={"labels": card.labels[::-1]})
    swapped.save(registry.folder(card.tag))
    with pytest.raises(GateFailed, match="other labels"):
        Engine.load(registry.folder(card.tag)).replay_goldens()


def test_work_in_progress_lies_in_the_home_where_what_was_killed_is_removed(
    dataset: Dataset,
    registry: Registry,
    small_cnn: NetworkRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = left_behind(registry.home, ".train-")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    seen: list[Path] = []

    def listen(stage: str, **said: Any) -> None:
        if stage == "exporting":
            seen.extend([*registry.home.glob(".train-*/model"), *elsewhere.glob("imgcls-*")])

    train(dataset, small_cnn, name="shapes", registry=registry, on_event=listen)
    assert not left.exists()
    assert {path.parent.parent for path in seen} == {registry.home}


def test_the_registered_graph_answers_at_any_batch_size_and_replays_its_goldens(
    dataset: Dataset, registry: Registry, small_cnn: NetworkRecipe
) -> None:
    card = train(dataset, small_cnn, name="shapes", registry=registry)
    engine = Engine.load(registry.folder(card.tag))
    engine.replay_goldens()
    pixels = np.stack(
        [images.load(dataset.read(row), card.preprocessing) for row in dataset.rows("test")]
    )
    together, embedding = engine.run(pixels)
    assert embedding.shape == (len(pixels), card.embedding_dim)
    assert together.dtype == np.float32
    assert np.allclose(together.sum(1), 1, atol=1e-5)
    alone = np.concatenate([engine.run(pixels[i : i + 1])[0] for i in range(len(pixels))])
    assert np.abs(alone - together).max() < 1e-5
    accuracy = (together.argmax(1) == dataset.targets(dataset.rows("test"))).mean()
    assert accuracy == pytest.approx(card.metrics.accuracy)
    folder = registry.folder(card.tag)
    assert [f.name for f in folder.iterdir() if f.name.endswith(".data")] == []
    goldens = GoldenSet.model_validate_json((folder / GOLDEN_DIR / "golden.json").read_bytes())
    assert 8 <= len(goldens.images) <= 16


def test_the_embedding_of_held_out_images_is_the_reference_for_drift(
    shapes: Callable[..., Path], registry: Registry, small_cnn: NetworkRecipe
) -> None:
    dataset = open_dataset(shapes(each=200))
    val = dataset.rows("val")
    assert len(val) >= MIN_REFERENCE
    card = train(dataset, small_cnn, name="shapes", registry=registry)
    folder = registry.folder(card.tag)
    reference = Reference.load(folder)
    assert reference is not None
    pixels = np.stack([images.load(dataset.read(row), card.preprocessing) for row in val])
    _, embedding = Engine.load(folder).run(pixels)
    assert reference.images == len(val)
    assert np.allclose(reference.mean, embedding.mean(axis=0), atol=1e-4)
    assert np.allclose(reference.std, embedding.std(axis=0), atol=1e-4)


def test_a_changed_graph_or_golden_image_is_noticed(
    dataset: Dataset, registry: Registry, small_cnn: NetworkRecipe
) -> None:
    folder = registry.folder(train(dataset, small_cnn, name="shapes", registry=registry).tag)
    golden = sorted((folder / GOLDEN_DIR).glob("0*.png"))
    kept = golden[0].read_bytes()
    golden[0].write_bytes(golden[1].read_bytes())
    with pytest.raises(GateFailed):
        Engine.load(folder).replay_goldens()
    golden[0].write_bytes(kept)
    Engine.load(folder).replay_goldens()
    graph = bytearray((folder / GRAPH_FILE).read_bytes())
    graph[-1] ^= 1
    (folder / GRAPH_FILE).write_bytes(bytes(graph))
    with pytest.raises(BadModel, match="hash"):
        Engine.load(folder)


def test_one_neuron_gives_probabilities_that_sum_to_one_and_obeys_its_threshold(
    shapes: Callable[..., Path], registry: Registry, small_probe: FeaturesRecipe
) -> None:
    dataset = open_dataset(shapes(classes=2))
    recipe = load_recipe(small_probe.model_dump(), {"head.activation": "sigmoid", "threshold": 1.0})
    card = train(dataset, recipe, name="two", registry=registry)
    assert card.threshold == 1.0
    assert card.backbone == "resnet18"
    assert card.embedding_dim == 512
    # Nothing reaches a probability of 1: every verdict is the first class.
    assert [sum(row) for row in zip(*card.metrics.confusion_matrix, strict=True)] == [
        card.metrics.images,
        0,
    ]
    engine = Engine.load(registry.folder(card.tag))
    probabilities, _ = engine.run(np.zeros((2, 32, 32, 3), np.uint8))
    assert probabilities.shape == (2, 2)
    assert np.allclose(probabilities.sum(1), 1)


def test_one_neuron_for_three_classes_is_refused_before_any_work(
    dataset: Dataset, small_probe: FeaturesRecipe
) -> None:
    recipe = load_recipe(small_probe.model_dump(), {"head.activation": "sigmoid"})
    with pytest.raises(BadRecipe, match="softmax"):
        train(dataset, recipe, name="three")


def test_a_second_run_on_the_same_data_does_not_touch_the_backbone(
    dataset: Dataset, small_probe: FeaturesRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(dataset, small_probe, name="probe")

    def fail(*args: Any) -> None:
        raise AssertionError("the backbone ran")

    monkeypatch.setattr("training.features.compute.graphs.runner", fail)
    assert figures(train(dataset, small_probe, name="probe")) == figures(first)
    with pytest.raises(AssertionError, match="backbone ran"):
        train(dataset, small_probe.model_copy(update={"seed": 3}), name="probe")


def test_a_dataset_of_one_class_is_refused(
    shapes: Callable[..., Path], tmp_path: Path, small_cnn: NetworkRecipe
) -> None:
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    (lonely / "blue").symlink_to(shapes() / "blue")
    with pytest.raises(BadDataset):
        train(lonely, small_cnn, name="one")


@pytest.mark.parametrize("size", [8, 9, 16, 33, 128])
def test_the_cnn_builds_at_any_size(size: int) -> None:
    network = cnn(size, 3, width=0.5, dense=8, dropout=0.2).eval()
    probabilities, embedding = network(torch.zeros(2, size, size, 3, dtype=torch.uint8))
    assert probabilities.shape == (2, 3)
    assert embedding.shape == (2, 8)
    other = cnn(size, 3, width=0.5, dense=8, dropout=0.2).eval()
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(torch.zeros(2, size, size, 3, dtype=torch.uint8))[0], probabilities)
