"""Features recipes: compute features once, fit a head on them."""

from functools import partial

import torch

from imgcls.card import Preprocessing
from imgcls.data import Dataset
from imgcls.errors import BadRecipe
from imgcls.recipes import FeaturesRecipe
from imgcls.recipes.types import BackboneFeatures, LinearHead
from training import linear, networks
from training.backbones import load_backbone
from training.events import OnEvent, epoch_reporter, throttled
from training.export import write_graph
from training.features import features
from training.fitted import Fitted, default_side, device, device_name
from training.networks import Classifier


def fit_features(dataset: Dataset, recipe: FeaturesRecipe, emit: OnEvent) -> Fitted:
    """Features, computed once, then the head on top of them."""
    head, wanted = recipe.head, recipe.features
    if not isinstance(wanted, BackboneFeatures) or not isinstance(head, LinearHead):
        raise BadRecipe("Only features.kind=backbone with head.kind=linear can be trained.")
    classes = len(dataset.labels)
    linear.check_head(head, classes)
    size = recipe.image_size or default_side(dataset)
    preprocessing = Preprocessing(height=size, width=size, resize=recipe.resize)
    emit("features", progress=0.0, message=device_name())
    backbone = load_backbone(wanted.name, wanted.weights, image_size=size, seed=recipe.seed)
    rows = {split: dataset.rows(split) for split in ("train", "val", "test")}
    total = sum(len(part) for part in rows.values())
    found, done = {}, 0
    for split, part in rows.items():
        report = throttled(emit, "features", at=done / total, share=len(part) / total)
        found[split] = features(
            backbone, dataset, part, preprocessing, device=device(), progress=report
        )
        done += len(part)
    emit("training", progress=0.0, epoch=0, epochs=head.epochs)
    fitted = linear.fit_head(
        (found["train"], dataset.targets(rows["train"])),
        (found["val"], dataset.targets(rows["val"])),
        head,
        classes=classes,
        seed=recipe.seed,
        on_epoch=epoch_reporter(emit, head.epochs),
    )
    emit("evaluating", progress=0.0)
    network = Classifier(
        networks.Normalise(backbone.mean, backbone.std),
        backbone.body,
        fitted.head,
        head.activation,
    )
    answers = {}
    with torch.inference_mode():
        for split in ("val", "test"):
            logits = fitted.head(torch.from_numpy(found[split]))
            answers[split] = networks.probabilities(logits, head.activation).numpy()
    return Fitted(
        partial(write_graph, network.eval(), preprocessing),
        preprocessing,
        fitted.history,
        answers=answers,
        embedding_dim=backbone.dim,
        backbone=wanted.name,
        packages=("timm",) if backbone.library == "timm" else (),
    )
