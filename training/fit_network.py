"""Network recipes: decode everything once, train by gradient descent."""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np

from imgcls.card import Preprocessing
from imgcls.data import Dataset
from imgcls.recipes import NetworkRecipe
from training import architectures, augment, loop
from training.architectures import Parts
from training.checkpoint import Checkpoint
from training.events import OnEvent, epoch_reporter, throttled
from training.export import write_graph
from training.fitted import Fitted, default_side, device, device_name, output_range
from training.networks import Classifier, Network, Regressor
from training.objectives import (
    Classification,
    DensityWeights,
    Objective,
    Regression,
    class_weights,
    middle_and_spread,
)
from training.pixels import Examples, decoded

_LOOKED_AT = 500
"""Training images that the augmentation is chosen by."""


def fit_network(
    dataset: Dataset, recipe: NetworkRecipe, emit: OnEvent, *, checkpoint_dir: Path | None = None
) -> Fitted:
    """Decode everything once, train the network on it.

    With `checkpoint_dir` every epoch is saved there, and a training that was killed goes on behind
    its last one.
    """
    size = recipe.image_size or default_side(dataset)
    preprocessing = Preprocessing(height=size, width=size, resize=recipe.resize)
    regression = dataset.task == "regression"
    pixels = decoded(dataset, preprocessing, progress=throttled(emit, "loading"))
    examples = {}
    for split in ("train", "val", "test"):
        rows = dataset.rows(split)
        counts = dataset.weights(rows) if split == "train" else None
        examples[split] = Examples(pixels, rows, dataset.targets(rows), counts)
    train = examples["train"]
    outputs = 1 if regression else len(dataset.labels)
    parts = architectures.build(recipe.network, size, outputs, seed=recipe.seed)
    if regression:
        network, objective = _regression(parts, train, recipe, output_range(dataset, recipe))
    else:
        network, objective = _classification(parts, train, recipe, outputs)
    chosen = augment.resolve(recipe.augment, train.some(_LOOKED_AT), regression=regression)
    emit("training", progress=0.0, epoch=0, epochs=recipe.epochs, message=device_name())
    fitted = loop.fit(
        network,
        train,
        examples["val"],
        recipe,
        objective,
        augment=augment.Augmenter(chosen, (size, size), outputs),
        device=device(),
        checkpoint=(
            Checkpoint(checkpoint_dir, _identity(dataset, recipe, examples))
            if checkpoint_dir
            else None
        ),
        on_epoch=epoch_reporter(emit, recipe.epochs),
        on_step=throttled(emit, "training"),
    )
    emit("evaluating", progress=0.0)
    return Fitted(
        partial(write_graph, fitted.network, preprocessing),
        preprocessing,
        fitted.history,
        answers={
            split: loop.answers(fitted.network, examples[split], device=device())
            for split in ("val", "test")
        },
        embedding_dim=parts.embedding_dim,
        backbone=parts.backbone,
        packages=parts.packages,
    )


def _classification(
    parts: Parts, train: Examples, recipe: NetworkRecipe, classes: int
) -> tuple[Network, Objective]:
    targets = train.targets.astype(np.int64)
    balanced = recipe.loss.class_weights
    weights = class_weights(targets, classes) if balanced else np.ones(classes, np.float32)
    return (
        Classifier(parts.normalise, parts.body, parts.head),
        Classification(weights, recipe.loss.label_smoothing),
    )


def _regression(
    parts: Parts, train: Examples, recipe: NetworkRecipe, within: tuple[float, float]
) -> tuple[Network, Objective]:
    targets = train.targets.astype(np.float32)
    middle, spread = middle_and_spread(targets)
    network = Regressor(
        parts.normalise,
        parts.body,
        parts.head,
        middle=middle,
        spread=spread,
        output_range=within,
    )
    weight_of = DensityWeights(targets) if recipe.loss.density_weights else None
    return network, Regression(middle, spread, weight_of)


def _identity(dataset: Dataset, recipe: NetworkRecipe, examples: dict[str, Examples]) -> str:
    """Of a training: what is trained, on which images, with which truths."""
    digest = hashlib.sha256(f"{dataset.tag}\n{recipe.model_dump_json()}\n".encode())
    for split in ("train", "val"):
        digest.update(examples[split].rows.tobytes() + examples[split].targets.tobytes())
    return digest.hexdigest()
