"""Network recipes: decode everything once, train by gradient descent."""

from functools import partial

from imgcls.card import Preprocessing
from imgcls.data import Dataset
from imgcls.errors import BadRecipe
from imgcls.recipes import NetworkRecipe
from imgcls.recipes.types import CnnNetwork
from training import augment, evaluate, loop, networks
from training.events import OnEvent, epoch_reporter, throttled
from training.export import write_graph
from training.fitted import Fitted, default_side, device, device_name
from training.loader import load_pixels


def fit_network(dataset: Dataset, recipe: NetworkRecipe, emit: OnEvent) -> Fitted:
    """Decode everything once, train the network on it."""
    if not isinstance(recipe.network, CnnNetwork):
        raise BadRecipe("Only network.kind=cnn can be trained.")
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
        width=recipe.network.width,
        dense=recipe.network.dense,
        dropout=recipe.network.dropout,
        dense_dropout=recipe.network.dense_dropout,
    )
    emit("training", progress=0.0, epoch=0, epochs=recipe.epochs, message=device_name())
    fitted = loop.fit(
        network,
        (pixels["train"], dataset.targets(rows["train"])),
        (pixels["val"], dataset.targets(rows["val"])),
        recipe,
        classes=classes,
        augment=changes,
        device=device(),
        on_epoch=epoch_reporter(emit, recipe.epochs),
        on_step=throttled(emit, "training"),
    )
    emit("evaluating", progress=0.0)
    return Fitted(
        partial(write_graph, fitted.network, preprocessing),
        preprocessing,
        fitted.history,
        answers={
            split: evaluate.predict(fitted.network, pixels[split], device=device())
            for split in ("val", "test")
        },
        embedding_dim=recipe.network.dense,
    )
