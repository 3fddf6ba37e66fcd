"""Models in a store of their own, for measuring: networks whose weights are drawn with a seed.

How fast a network answers does not depend on what it has learnt, so that nothing is trained; the
outputs are spread, so that a mixed-up answer shows. Everything else is real: the graph is the one
that training would export, with card and golden images, registered and active.
"""

import io
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from imgcls import images
from imgcls.card import (
    GOLDEN_DIR,
    GOLDEN_FILE,
    GRAPH_FILE,
    DatasetLineage,
    Golden,
    GoldenSet,
    Metrics,
    ModelCard,
    Preprocessing,
    graph_sha256,
)
from imgcls.engine import Engine
from imgcls.recipes import Recipe, load_recipe
from imgcls.recipes.types import CnnNetwork
from imgcls.registry import Registry

if TYPE_CHECKING:  # torch is slow to load, and not needed to send pictures
    from training.networks import Classifier

CLASSES = 10
_SPREAD = 12.0
"""Standard deviation of the logits of a network that has learnt nothing."""
_GOLDENS = 8


@dataclass(frozen=True, slots=True)
class Model:
    card: ModelCard
    folder: Path

    @property
    def graph(self) -> Path:
        return self.folder / GRAPH_FILE


def registry_at(home: Path) -> Registry:
    """The registry that a service with `BENTOML_HOME=home` has."""
    return Registry(home=home / "imgcls", store=home / "models")


def cnn(home: Path, *, side: int = 32, seed: int = 0, name: str = "tiny") -> Model:
    """Register the default `cnn` with seeded weights under `home`, and make it active."""
    import torch

    from benchmarks import pictures
    from training.networks import cnn as build

    recipe = load_recipe("cnn", {"image_size": side, "seed": seed})
    torch.manual_seed(seed)
    told = CnnNetwork()
    network = build(side, CLASSES, width=told.width, dense=told.dense, dropout=told.dropout)
    return _register(home, name, network, recipe, side, pictures.cut(side, side, 16, seed=seed))


def torchvision(
    home: Path, backbone: str, files: Sequence[bytes], weights: Path, *, side: int = 224
) -> Model:
    """The same for torchvision's `backbone`, whose outputs are spread over the pictures `files`.

    Its weights are saved to `weights` too, under the names that torchvision's own network has.
    """
    import torch
    from torch import nn
    from torchvision.models import get_model

    from training.backbones import load_backbone
    from training.networks import Classifier, Normalise

    features = {"name": backbone, "weights": "none"}
    recipe = load_recipe("linear-probe", {"features": features, "image_size": side})
    loaded = load_backbone(backbone, "none", image_size=side, seed=recipe.seed)
    torch.manual_seed(recipe.seed)
    head = nn.Linear(loaded.dim, CLASSES)
    network = Classifier(Normalise(loaded.mean, loaded.std), loaded.body, head)
    model = _register(home, backbone.replace("_", "-"), network, recipe, side, files)
    *_, weight, bias = get_model(backbone, num_classes=CLASSES).state_dict()
    state = {**loaded.body.state_dict(), weight: head.weight.detach(), bias: head.bias.detach()}
    torch.save(state, weights)
    return model


def in_8_bits(model: Model, home: Path, files: Sequence[bytes]) -> Model | None:
    """Register the 8-bit form of `model` under `home`, calibrated on the pictures `files`.

    None where imgcls would not keep it, because it is no quicker on this machine.
    """
    from training.quantize import quantize

    registry = registry_at(home)
    pixels = _pixels(files, model.card.preprocessing)
    with tempfile.TemporaryDirectory(prefix="model-") as scratch:
        folder = Path(scratch) / "model"
        shutil.copytree(model.folder, folder)
        graph = folder / GRAPH_FILE
        targets = Engine.load(folder).answers(pixels).argmax(axis=1)
        found = quantize(graph, pixels, targets, largest_loss=1.0)
        if not found.kept:
            return None
        changed = {"graph_sha256": graph_sha256(graph), "quantization": found}
        card = model.card.model_copy(update=changed)
        card.save(folder)
        _write_goldens(Model(card, folder), files[:_GOLDENS])
        tag = registry.register(folder, card)
    registry.point(tag)
    return Model(card, registry.folder(tag))


def labels(model: Model, files: Sequence[bytes]) -> list[int | None]:
    """What the model says to encoded images, without any server: indices of classes.

    None where it depends on the decoder: a JPEG decoded at half its scale and resized is not, step
    by step, one decoded whole and resized, and a network that has learnt nothing may tell the two
    apart.
    """
    preprocessing = model.card.preprocessing
    size = (preprocessing.width, preprocessing.height)
    whole = [
        Image.open(io.BytesIO(file)).convert("RGB").resize(size, Image.Resampling.BILINEAR)
        for file in files
    ]
    engine = Engine.load(model.folder)
    ours = engine.answers(_pixels(files, preprocessing)).argmax(axis=1)
    theirs = engine.answers(np.stack([np.asarray(image) for image in whole])).argmax(axis=1)
    return [int(a) if a == b else None for a, b in zip(ours, theirs, strict=True)]


def _register(
    home: Path,
    name: str,
    network: "Classifier",
    recipe: Recipe,
    side: int,
    files: Sequence[bytes],
) -> Model:
    from training.export import write_graph

    registry = registry_at(home)
    preprocessing = Preprocessing(height=side, width=side)
    _spread(network, _pixels(files, preprocessing))
    with tempfile.TemporaryDirectory(prefix="model-") as scratch:
        folder = Path(scratch) / "model"
        (folder / GOLDEN_DIR).mkdir(parents=True)
        write_graph(network, preprocessing, folder / GRAPH_FILE)
        card = ModelCard(
            tag=registry.new_tag(name),
            labels=[f"class-{number}" for number in range(CLASSES)],
            preprocessing=preprocessing,
            embedding_dim=network.head.in_features,
            recipe=recipe.model_dump(mode="json"),
            metrics=Metrics(
                split="none",
                images=0,
                accuracy=0.0,
                macro_f1=0.0,
                log_loss=0.0,
                per_class=[],
                confusion_matrix=[],
            ),
            dataset=DatasetLineage(tag="none:0", images=0, splits={}, seed=recipe.seed),
            graph_sha256=graph_sha256(folder / GRAPH_FILE),
            parity=0.0,
            duration_seconds=0.0,
        )
        card.save(folder)
        _write_goldens(Model(card, folder), files[:_GOLDENS])
        tag = registry.register(folder, card)
    registry.point(tag)
    return Model(card, registry.folder(tag))


def _spread(network: "Classifier", pixels: images.Pixels) -> None:
    """Fit batch norm and head to the pictures, so that their answers differ."""
    import torch
    from torch import nn

    batch = torch.from_numpy(pixels)
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.momentum = None  # the plain mean over all batches, of which there is one
    with torch.no_grad():
        network.logits(batch)
        head = network.eval().head
        head.weight.mul_(_SPREAD / network.logits(batch).std(dim=0).mean())
        head.bias.sub_(network.logits(batch).mean(dim=0))


def _pixels(files: Sequence[bytes], preprocessing: Preprocessing) -> images.Pixels:
    return np.stack([images.load(file, preprocessing) for file in files])


def _write_goldens(model: Model, files: Sequence[bytes]) -> None:
    pixels = _pixels(files, model.card.preprocessing)
    answers = Engine.load(model.folder).answers(pixels)
    goldens = []
    for number, (file, row) in enumerate(zip(files, answers, strict=True)):
        golden = Golden(file=f"{number:02d}.jpg", probabilities=[float(p) for p in row])
        (model.folder / GOLDEN_DIR / golden.file).write_bytes(file)
        goldens.append(golden)
    text = GoldenSet(images=goldens).model_dump_json(indent=2)
    (model.folder / GOLDEN_DIR / GOLDEN_FILE).write_text(text)
