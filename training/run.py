"""The pipeline: dataset -> fit -> evaluate -> export -> compare -> register -> card."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from imgcls.card import GRAPH_FILE, ModelCard
from imgcls.data import Dataset, open_dataset
from imgcls.drift import Reference
from imgcls.engine import gate
from imgcls.recipes import Cnn, Recipe, load_recipe
from imgcls.registry import Registry
from training import evaluate, export
from training.events import OnEvent, ignore
from training.fit import Fitted, fit_cnn, fit_linear_probe
from training.loader import load_pixels
from training.seeding import reproducible
from training.versions import versions

PARITY_IMAGES = 200
_VERSIONED = (
    "imgcls", "torch", "torchvision", "onnx", "onnxruntime", "numpy", "pillow", "simplejpeg",
)  # fmt: skip


def train(
    dataset: Dataset | str | Path,
    recipe: Recipe | str | dict[str, Any] = "cnn",
    *,
    name: str,
    registry: Registry | None = None,
    on_event: OnEvent | None = None,
    baseline: bool = False,
    seed: int = 0,
) -> ModelCard:
    """Train a model called `name` and register it; returns its card.

    `dataset` is open already, or a path or stored tag to open with splits drawn from `seed`.
    `recipe` is a recipe, its name or a mapping. The same dataset, recipe and machine give the
    same metrics. A `baseline` is protected from removal.

    Raises `BadRecipe`, `BadDataset`, `WeightsUnavailable`, `ParityFailed`, `TrainingFailed`.
    """
    started = time.perf_counter()
    emit = on_event or ignore
    registry = registry or Registry()
    tag = registry.new_tag(name)
    recipe = load_recipe(recipe) if isinstance(recipe, str | dict) else recipe
    opened = not isinstance(dataset, Dataset)
    emit("loading", progress=0.0)
    if not isinstance(dataset, Dataset):
        dataset = open_dataset(dataset, seed=seed)
    try:
        dataset.check_trainable()
        with reproducible(recipe.seed):
            if isinstance(recipe, Cnn):
                fitted = fit_cnn(dataset, recipe, emit)
            else:
                fitted = fit_linear_probe(dataset, recipe, emit)
            return _finish(dataset, recipe, fitted, tag, baseline, registry, emit, started)
    finally:
        if opened:
            dataset.close()


def _finish(
    dataset: Dataset,
    recipe: Recipe,
    fitted: Fitted,
    tag: str,
    baseline: bool,
    registry: Registry,
    emit: OnEvent,
    started: float,
) -> ModelCard:
    threshold = recipe.threshold if len(dataset.labels) == 2 else None
    test, val = dataset.rows("test"), dataset.rows("val")
    metrics = evaluate.measure(
        dataset.labels, dataset.targets(test), fitted.test, threshold=threshold
    )
    headline = {
        "accuracy": metrics.accuracy,
        "macro_f1": metrics.macro_f1,
        "log_loss": metrics.log_loss,
    }
    emit("evaluating", progress=1.0, metrics=headline)
    emit("exporting", progress=0.0)
    with tempfile.TemporaryDirectory(prefix="imgcls-") as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        sha256 = export.write_graph(fitted.network, fitted.preprocessing, folder / GRAPH_FILE)
        emit("exporting", progress=0.5)
        graph = export.Graph(folder / GRAPH_FILE)
        # Spread over the split, so that all classes take part.
        some = np.unique(np.linspace(0, len(val) - 1, min(len(val), PARITY_IMAGES)).astype(int))
        pixels = load_pixels(dataset, val[some], fitted.preprocessing)
        answers, embedding = graph.run(pixels)
        parity = export.compare(answers, fitted.val[some])
        if reference := Reference.of(embedding):
            reference.save(folder)
        emit("exporting", progress=0.9)
        export.write_goldens(
            folder, graph, dataset, test, dataset.targets(test), fitted.preprocessing
        )
        card = ModelCard(
            tag=tag,
            labels=dataset.labels,
            threshold=threshold,
            preprocessing=fitted.preprocessing,
            embedding_dim=fitted.embedding_dim,
            recipe=recipe.model_dump(mode="json"),
            backbone=fitted.backbone,
            metrics=metrics,
            history=fitted.history,
            dataset=dataset.lineage(),
            graph_sha256=sha256,
            parity=parity,
            versions=versions(*_VERSIONED, *fitted.packages),
            duration_seconds=round(time.perf_counter() - started, 3),
            baseline=baseline,
        )
        card.save(folder)
        emit("registering", progress=0.0)
        gate(folder)  # no model enters the store that serving would refuse
        registry.register(folder, card)
    emit("done", progress=1.0, metrics=headline, message=tag)
    return card
