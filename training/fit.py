"""One function a recipe: dataset to a trained network and its answers on held-out images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from imgcls.card import Preprocessing
from imgcls.data import Dataset
from imgcls.recipes import Cnn, LinearProbe
from training import augment, evaluate, linear, loop, networks
from training.backbones import load_backbone
from training.events import OnEvent, epoch_reporter, throttled
from training.features import features
from training.loader import load_pixels
from training.networks import Classifier

Floats = npt.NDArray[np.float32]

LARGEST_DEFAULT_SIDE = 128
"""Pixels that `image_size: null` never exceeds."""
SMALLEST_SIDE = 8


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a recipe makes of a dataset: a network, and its probabilities on held-out rows."""

    network: Classifier
    preprocessing: Preprocessing
    history: list[dict[str, float]]
    test: Floats
    """`[n_test, C]`, in the order of `dataset.rows("test")`."""
    val: Floats
    """`[n_val, C]`."""
    embedding_dim: int
    backbone: str | None = None
    packages: tuple[str, ...] = ()


def fit_cnn(dataset: Dataset, recipe: Cnn, emit: OnEvent) -> Fitted:
    """Decode everything once, train the six-block network on it."""
    size = recipe.image_size or default_side(dataset)
    preprocessing = Preprocessing(height=size, width=size, resize=recipe.resize)
    rows = {split: dataset.rows(split) for split in ("train", "val", "test")}
    total = sum(len(part) for part in rows.values())
    pixels, done = {}, 0
    for split, part in rows.items():
        report = throttled(emit, "loading", at=done / total, share=len(part) / total)
        pixels[split] = load_pixels(dataset, part, preprocessing, progress=report)
        done += len(part)
    classes = len(dataset.labels)
    chosen = augment.resolve(recipe.augment, pixels["train"])
    changes = augment.Augmenter(chosen, (size, size), classes)
    network = networks.cnn(
        size,
        classes,
        width=recipe.width,
        dense=recipe.dense,
        dropout=recipe.dropout,
        dense_dropout=recipe.dense_dropout,
    )
    emit("training", progress=0.0, epoch=0, epochs=recipe.epochs, message=_device_name())
    fitted = loop.fit(
        network,
        (pixels["train"], dataset.targets(rows["train"])),
        (pixels["val"], dataset.targets(rows["val"])),
        recipe,
        classes=classes,
        augment=changes,
        device=_device(),
        on_epoch=epoch_reporter(emit, recipe.epochs),
        on_step=throttled(emit, "training"),
    )
    emit("evaluating", progress=0.0)
    return Fitted(
        fitted.network,
        preprocessing,
        fitted.history,
        test=evaluate.predict(fitted.network, pixels["test"], device=_device()),
        val=evaluate.predict(fitted.network, pixels["val"], device=_device()),
        embedding_dim=recipe.dense,
    )


def fit_linear_probe(dataset: Dataset, recipe: LinearProbe, emit: OnEvent) -> Fitted:
    """Features of the frozen backbone, then the linear head on top of them."""
    classes = len(dataset.labels)
    linear.check_head(recipe, classes)
    size = recipe.image_size
    preprocessing = Preprocessing(height=size, width=size, resize=recipe.resize)
    emit("features", progress=0.0, message=_device_name())
    backbone = load_backbone(recipe.backbone, recipe.weights, image_size=size, seed=recipe.seed)
    rows = {split: dataset.rows(split) for split in ("train", "val", "test")}
    total = sum(len(part) for part in rows.values())
    found, done = {}, 0
    for split, part in rows.items():
        report = throttled(emit, "features", at=done / total, share=len(part) / total)
        found[split] = features(
            backbone, dataset, part, preprocessing, device=_device(), progress=report
        )
        done += len(part)
    emit("training", progress=0.0, epoch=0, epochs=recipe.epochs)
    fitted = linear.fit_head(
        (found["train"], dataset.targets(rows["train"])),
        (found["val"], dataset.targets(rows["val"])),
        recipe,
        classes=classes,
        on_epoch=epoch_reporter(emit, recipe.epochs),
    )
    emit("evaluating", progress=0.0)
    network = Classifier(
        networks.Normalise(backbone.mean, backbone.std), backbone.body, fitted.head, recipe.head
    )
    answers = {}
    with torch.inference_mode():
        for split in ("val", "test"):
            logits = fitted.head(torch.from_numpy(found[split]))
            answers[split] = networks.probabilities(logits, recipe.head).numpy()
    return Fitted(
        network.eval(),
        preprocessing,
        fitted.history,
        test=answers["test"],
        val=answers["val"],
        embedding_dim=backbone.dim,
        backbone=recipe.backbone,
        packages=("timm",) if backbone.library == "timm" else (),
    )


def default_side(dataset: Dataset) -> int:
    """The median side of the training images in pixels, from 8 to `LARGEST_DEFAULT_SIDE`."""
    table = dataset.index.take(dataset.rows("train"))
    sides = (table["width"].to_numpy() + table["height"].to_numpy()) / 2
    return int(np.clip(np.median(sides), SMALLEST_SIDE, LARGEST_DEFAULT_SIDE))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _device_name() -> str:
    device = _device()
    if device.type == "cuda":
        return f"on {torch.cuda.get_device_name(device)}"
    return f"on the CPU, {torch.get_num_threads()} threads"
