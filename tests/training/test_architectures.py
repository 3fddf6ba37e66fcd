"""Networks by name: what learns when, and graphs that answer as they do."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from imgcls.card import Preprocessing
from imgcls.errors import BadRecipe, WeightsUnavailable
from imgcls.recipes import NetworkRecipe, load_recipe
from imgcls.recipes.types import Architecture, CnnNetwork
from training.architectures import build
from training.export import write_graph
from training.loop import fit
from training.networks import Classifier, Regressor
from training.objectives import Classification
from training.pixels import Examples

EVENLY = Classification(np.ones(2, np.float32))


def noise(count: int, side: int = 32) -> Examples:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return Examples(pixels, np.arange(count), np.arange(count) % 2)


@pytest.mark.parametrize(
    ("name", "dim"),
    [("mobilenet_v3_small", 1024), ("resnetv2_18d", 512)],
)
def test_a_network_by_name_learns_and_its_graph_answers_alike(
    name: str, dim: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = Architecture(name=name, weights="none", hidden=16, dropout=0.1)
    parts = build(config, 64, 3, seed=0)
    assert parts.embedding_dim == dim
    assert parts.packages == (("timm",) if name == "resnetv2_18d" else ())
    network = Classifier(parts.normalise, parts.body, parts.head)
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    network.train().logits(images).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    write_graph(network.eval(), Preprocessing(height=64, width=64), tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx")
    assert [output.name for output in session.get_outputs()] == ["probabilities", "embedding"]
    with torch.inference_mode():
        expected = network(images)
    for got, wanted in zip(session.run(None, {"images": images.numpy()}), expected, strict=True):
        assert np.abs(got - wanted.numpy()).max() < 1e-3


def changes(**network: object) -> list[tuple[bool, bool]]:
    """Whether body and head have changed, after each of two epochs."""
    recipe = load_recipe(
        {
            "kind": "network",
            "network": {
                "kind": "architecture", "name": "mobilenet_v3_small", "weights": "none", **network,
            },
            "epochs": 2,
            "batch_size": 8,
        }
    )  # fmt: skip
    assert isinstance(recipe, NetworkRecipe)
    torch.manual_seed(0)
    parts = build(recipe.network, 32, 2, seed=0)
    whole = Classifier(parts.normalise, parts.body, parts.head)
    before = {k: v.clone() for k, v in whole.state_dict().items()}
    seen: list[tuple[bool, bool]] = []

    def look(row: dict[str, float]) -> None:
        now = whole.state_dict()
        changed = {k.partition(".")[0] for k in before if not torch.equal(before[k], now[k])}
        seen.append(("body" in changed, "head" in changed))

    fit(whole, noise(16), noise(8), recipe, EVENLY, on_epoch=look)
    return seen


def test_what_is_frozen_stays_to_the_last_number() -> None:
    assert changes() == [(True, True), (True, True)]
    assert changes(train="head-first", head_epochs=1) == [(False, True), (True, True)]
    assert changes(train="head") == [(False, True), (False, True)]


def test_scores_never_leave_their_range(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = build(CnnNetwork(width=0.5, dense=16), 32, 1, seed=0)
    network = Regressor(
        parts.normalise, parts.body, parts.head, middle=5, spread=2, output_range=(0, 10)
    ).eval()
    images = noise(40).pixels
    with torch.no_grad():  # far beyond the range, both ways
        logits = network.logits(torch.from_numpy(images))
        parts.head.weight.mul_(10 / logits.std())
        parts.head.bias.sub_(network.logits(torch.from_numpy(images)).median())
    write_graph(network, Preprocessing(height=32, width=32), tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx")
    assert [output.name for output in session.get_outputs()] == ["score", "embedding"]
    scores, embedding = session.run(None, {"images": images})
    with torch.inference_mode():
        expected = network(torch.from_numpy(images))[0].numpy()
    assert scores.shape == (40,)
    assert embedding.shape == (40, 16)
    assert np.abs(scores - expected).max() < 0.01  # a thousandth of the range
    assert (scores.min(), scores.max()) == (0, 10)


def test_classifiers_half_way_are_left_out() -> None:
    parts = build(Architecture(name="googlenet", weights="none"), 64, 3, seed=0)
    assert parts.body.train()(torch.zeros(2, 3, 64, 64)).shape == (2, 1024)


def test_transformers_take_the_images_size() -> None:
    parts = build(Architecture(name="vit_tiny_patch16_224", weights="none"), 64, 3, seed=0)
    assert parts.body(torch.zeros(1, 3, 64, 64)).shape == (1, parts.embedding_dim)


def test_refusals_name_the_part_of_the_recipe_that_is_wrong() -> None:
    with pytest.raises(
        WeightsUnavailable, match=r"--set network\.weights=/.*network\.weights=none"
    ):
        build(Architecture(weights="/nowhere.pth"), 32, 2, seed=0)
    with pytest.raises(BadRecipe, match="resnet17"):
        build(Architecture(name="resnet17", weights="none"), 32, 2, seed=0)
