"""Small models in a store of their own, for measuring: the default CNN, trained or seeded.

How fast a network answers does not depend on what it has learnt, so that by default nothing is
trained: the weights are drawn with a seed, and the outputs spread so that a mixed-up answer shows.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import pictures
from benchmarks.servers import ROOT
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
)
from imgcls.engine import Engine
from imgcls.recipes import Cnn
from imgcls.registry import Registry

CLASSES = 10
_SPREAD = 12.0
"""Standard deviation of the logits of a network that has learnt nothing."""


@dataclass(frozen=True, slots=True)
class Tiny:
    card: ModelCard
    folder: Path

    @property
    def graph(self) -> Path:
        return self.folder / GRAPH_FILE


def registry_at(home: Path) -> Registry:
    """The registry that a service with `BENTOML_HOME=home` has."""
    return Registry(home=home / "imgcls", store=home / "models")


def untrained(home: Path, *, side: int = 32, seed: int = 0, name: str = "tiny") -> Tiny:
    """Register the default `cnn` with seeded weights under `home`, and make it active."""
    registry = registry_at(home)
    files = pictures.cut(side, side, 16, seed=seed)
    preprocessing = Preprocessing(height=side, width=side)
    pixels = np.stack([images.load(file, preprocessing) for file in files])
    recipe = Cnn(image_size=side, seed=seed)
    with tempfile.TemporaryDirectory(prefix="tiny-") as scratch:
        folder = Path(scratch) / "model"
        (folder / GOLDEN_DIR).mkdir(parents=True)
        sha256 = _export(recipe, preprocessing, pixels, folder / GRAPH_FILE)
        card = ModelCard(
            tag=registry.new_tag(name),
            labels=[f"class-{number}" for number in range(CLASSES)],
            preprocessing=preprocessing,
            embedding_dim=recipe.dense,
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
            dataset=DatasetLineage(tag="none:0", images=0, splits={}, seed=seed),
            graph_sha256=sha256,
            parity=0.0,
            duration_seconds=0.0,
        )
        card.save(folder)
        _write_goldens(folder, files[:8], pixels[:8])
        tag = registry.register(folder, card)
    registry.point(tag)
    return Tiny(card, registry.folder(tag))


def from_data(home: Path, data: Path, *, side: int = 32, epochs: int = 3) -> Tiny:
    """Train the `cnn` recipe on `data` for a few epochs, through the command line."""
    command = [sys.executable, "-m", "imgcls.cli", "train", str(data), "--recipe", "cnn"]
    command += ["--name", "tiny", "--set", f"image_size={side}", "--set", f"epochs={epochs}"]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"BENTOML_HOME": str(home)})
    registry = registry_at(home)
    card = registry.get("tiny")
    registry.point(card.tag)
    return Tiny(card, registry.folder(card.tag))


def answers(model: Tiny, files: list[bytes]) -> npt.NDArray[np.float32]:
    """What the model says to encoded images, `float32 [N, C]`, without any server."""
    engine = Engine.load(model.folder)
    return engine.probabilities(
        np.stack([images.load(file, model.card.preprocessing) for file in files])
    )


def _export(recipe: Cnn, preprocessing: Preprocessing, pixels: images.Pixels, path: Path) -> str:
    """Draw the weights and write the graph to `path`; returns its SHA-256."""
    import torch

    from training.export import write_graph
    from training.networks import cnn

    torch.manual_seed(recipe.seed)
    network = cnn(
        preprocessing.height,
        CLASSES,
        width=recipe.width,
        dense=recipe.dense,
        dropout=recipe.dropout,
    )
    batch = torch.from_numpy(pixels)
    with torch.no_grad():
        for _ in range(30):  # batch norm learns what its inputs look like
            network.train().logits(batch)
        head = network.eval().head
        head.weight.mul_(_SPREAD / network.logits(batch).std(dim=0).mean())
        head.bias.sub_(network.logits(batch).mean(dim=0))
    return write_graph(network, preprocessing, path)


def _write_goldens(folder: Path, files: list[bytes], pixels: images.Pixels) -> None:
    probabilities = Engine.load(folder, threads=1).probabilities(pixels)
    goldens = []
    for number, (file, row) in enumerate(zip(files, probabilities, strict=True)):
        golden = Golden(file=f"{number:02d}.jpg", probabilities=[float(p) for p in row])
        (folder / GOLDEN_DIR / golden.file).write_bytes(file)
        goldens.append(golden)
    text = GoldenSet(images=goldens).model_dump_json(indent=2)
    (folder / GOLDEN_DIR / GOLDEN_FILE).write_text(text)
