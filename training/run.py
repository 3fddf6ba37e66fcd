"""The pipeline: dataset -> fit -> evaluate -> export -> compare -> register -> card."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imgcls.card import GRAPH_FILE, ModelCard, Quantization, graph_sha256
from imgcls.data import Dataset, open_dataset
from imgcls.drift import Reference
from imgcls.engine import gate
from imgcls.errors import BadRecipe
from imgcls.files import scratch
from imgcls.recipes import Recipe, load_recipe
from imgcls.registry import Registry
from training import export, repeats
from training.calibrate import scale_graph
from training.events import OnEvent, ignore
from training.fit import fit
from training.fitted import Fitted, Floats
from training.judge import Judge
from training.loader import iter_pixels, load_pixels
from training.quantize import quantize
from training.report import write_report
from training.seeding import reproducible
from training.versions import versions

PARITY_IMAGES = 200
JUDGED_IMAGES = 1_000
"""Validation images that decide whether an 8-bit graph is kept."""
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
    fitted: Fitted | None = None,
    checkpoint_dir: Path | None = None,
    cluster: str | None = None,
) -> ModelCard:
    """Train a model called `name` and register it; returns its card.

    `dataset` is open already, or a path or stored tag to open with splits drawn from `seed`.
    `recipe` is a recipe, its name or a mapping. The same dataset, recipe and machine give the
    same metrics. A `baseline` is protected from removal. `fitted` is what `recipe` has made of this
    dataset before, to be tested and registered without fitting again. A network saves every epoch
    in `checkpoint_dir` and goes on from what it finds there; whoever names the folder removes it.
    Features are computed on the Ray cluster at the address `cluster`, where one is given.

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
        _check(dataset, recipe)
        with reproducible(recipe.seed):
            fitted = fitted or fit(
                dataset, recipe, emit, checkpoint_dir=checkpoint_dir, cluster=cluster
            )
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
    test, val = dataset.rows("test"), dataset.rows("val")
    judge = Judge.of(dataset, recipe, fitted.answers["val"])
    answers = {split: judge.calibrated(found) for split, found in fitted.answers.items()}
    metrics = judge.measure(dataset.targets(test), answers["test"])
    emit("evaluating", progress=1.0, metrics=metrics.headline())
    emit("exporting", progress=0.0)
    with scratch(registry.home, ".train-") as work:
        folder = work / "model"
        folder.mkdir()
        fitted.write(folder / GRAPH_FILE)
        scale_graph(folder / GRAPH_FILE, judge.temperature)
        emit("exporting", progress=0.5)
        graph = export.Graph(folder / GRAPH_FILE)
        some = _spread(len(val), PARITY_IMAGES)
        pixels = load_pixels(dataset, val[some], fitted.preprocessing)
        found, embedding = graph.run(pixels)
        parity = export.compare(found, answers["val"][some], output_range=judge.output_range)
        quantization = None
        if recipe.int8 is not None:
            emit("quantizing", progress=0.0)
            quantization = _quantize(dataset, recipe.int8, fitted, folder / GRAPH_FILE, judge)
        if quantization and quantization.kept:  # what is served is what is measured
            graph = export.Graph(folder / GRAPH_FILE)
            embedding = graph.run(pixels)[1]
            answers["test"] = _answers(dataset, graph, fitted)
            metrics = judge.measure(dataset.targets(test), answers["test"])
        if reference := Reference.of(embedding):
            reference.save(folder)
        emit("exporting", progress=0.9, metrics=metrics.headline())
        export.write_goldens(
            folder,
            graph,
            dataset,
            test,
            dataset.targets(test),
            fitted.preprocessing,
            dataset.labels,
        )
        fold_metrics = repeats.folds(dataset, recipe, emit)
        curve = repeats.learning_curve(dataset, recipe, emit)
        card = ModelCard(
            tag=tag,
            task="classification" if judge.labels else "regression",
            labels=judge.labels,
            target=None if judge.labels else dataset.target_name,
            output_range=judge.output_range,
            interval=judge.interval,
            abstain_below=judge.abstain_below,
            temperature=judge.temperature,
            threshold=judge.threshold,
            preprocessing=fitted.preprocessing,
            embedding_dim=fitted.embedding_dim,
            recipe=recipe.model_dump(mode="json"),
            backbone=fitted.backbone,
            metrics=metrics,
            history=fitted.history,
            dataset=dataset.lineage(),
            graph_sha256=graph_sha256(folder / GRAPH_FILE),
            parity=parity,
            quantization=quantization,
            versions=versions(*_VERSIONED, *fitted.packages),
            duration_seconds=round(time.perf_counter() - started, 3),
            baseline=baseline,
            fold_metrics=fold_metrics,
            learning_curve=curve,
        )
        card.save(folder)
        write_report(folder, card, judge, dataset, test, dataset.targets(test), answers["test"])
        emit("registering", progress=0.0)
        gate(folder)  # no model enters the store that serving would refuse
        registry.register(folder, card)
    emit("done", progress=1.0, metrics=metrics.headline(), message=tag)
    return card


def _quantize(
    dataset: Dataset, largest_loss: float, fitted: Fitted, path: Path, judge: Judge
) -> Quantization:
    """The 8-bit form of the graph at `path`, judged on validation images."""
    val = dataset.rows("val")
    val = val[_spread(len(val), JUDGED_IMAGES)]
    return quantize(
        path,
        load_pixels(dataset, val, fitted.preprocessing),
        dataset.targets(val),
        largest_loss=largest_loss,
        threshold=judge.threshold,
    )


def _answers(dataset: Dataset, graph: export.Graph, fitted: Fitted) -> Floats:
    """A graph's answers to the test images."""
    chunks = iter_pixels(dataset, dataset.rows("test"), fitted.preprocessing)
    return np.concatenate([graph.run(chunk)[0] for chunk in chunks])


def _check(dataset: Dataset, recipe: Recipe) -> None:
    dataset.check_trainable()
    repeats.check(dataset, recipe)
    if recipe.int8 is not None and dataset.task == "regression":
        raise BadRecipe("int8 is judged by accuracy, which a regression has not; leave it null.")


def _spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most `most` of `count` positions, spread evenly, so that all classes take part."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
