"""Where the time of fine-tuning goes, and whether it and memory grow in proportion: a profile.

    python -m benchmarks.fine_tune ../shared/data/clothing.zip [--network efficientnet_b0]

Trains an architecture for an epoch on some of the images, then on twice as many, and prints the
share of the time that was spent in the network (forward, loss, backward, optimizer step), the
time of decoding, which happens once, and how much the process's own memory (anonymous pages; those
of the cache belong to the system) has grown beyond the network's. Fails below `--at-least`.
"""

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from pathlib import Path

import numpy as np

from imgcls.card import Preprocessing
from imgcls.data import Dataset, open_dataset
from imgcls.recipes import NetworkRecipe, load_recipe

_NETWORK = {"logits", "loss", "backward", "step"}
"""Functions of the loop whose time is the network's, with all that they call."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Profile fine-tuning.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", default="efficientnet_b0")
    parser.add_argument("--size", type=int, default=224, help="side of the images, in pixels")
    parser.add_argument("--images", type=int, default=128, help="of the smaller run")
    parser.add_argument("--at-least", type=float, default=0.9, help="share of the network")
    arguments = parser.parse_args()
    recipe = load_recipe(
        "efficientnet-b0",
        {
            "epochs": 1,
            "image_size": arguments.size,
            "network": {"name": arguments.network, "weights": "none", "train": "whole"},
        },
    )
    assert isinstance(recipe, NetworkRecipe)
    with tempfile.TemporaryDirectory(prefix="fine-tune-") as home:
        os.environ["BENTOML_HOME"] = home
        with open_dataset(arguments.data) as dataset:
            runs = [_run(dataset, recipe, times * arguments.images) for times in (1, 2)]
    print(f"twice the images took {runs[1][0] / runs[0][0]:.2f} times as long")
    if min(share for _, share in runs) < arguments.at_least:
        raise SystemExit(f"The network had less than {arguments.at_least:.0%} of the time.")


def _run(dataset: Dataset, recipe: NetworkRecipe, images: int) -> tuple[float, float]:
    """Seconds of an epoch, and the network's share of them."""
    from training import architectures, augment, loop
    from training.networks import Classifier
    from training.objectives import Classification
    from training.pixels import Examples, decoded
    from training.seeding import reproducible

    assert recipe.image_size is not None
    side, classes = recipe.image_size, len(dataset.labels)
    started = time.perf_counter()
    pixels = decoded(dataset, Preprocessing(height=side, width=side))
    decoding = time.perf_counter() - started
    rows = np.sort(np.random.default_rng(0).permutation(dataset.rows("train"))[:images])
    train = Examples(pixels, rows, dataset.targets(rows))
    val = dataset.rows("val")[:8]
    with reproducible(0):
        parts = architectures.build(recipe.network, side, classes, seed=0)
        changes = augment.resolve(recipe.augment, train.some(100))
        profile = cProfile.Profile()
        before = _own_memory()
        profile.enable()
        fitted = loop.fit(
            Classifier(parts.normalise, parts.body, parts.head),
            train,
            Examples(pixels, val, dataset.targets(val)),
            recipe,
            Classification(np.ones(classes, np.float32)),
            augment=augment.Augmenter(changes, (side, side), classes),
        )
        profile.disable()
    seconds = fitted.history[0]["seconds"]
    share = _network_seconds(profile) / seconds
    print(
        f"{len(rows):,} images of {side} px: an epoch {seconds:.1f} s, {share:.1%} of it in the "
        f"network; decoding {len(dataset):,} images {decoding:.1f} s; "
        f"memory +{(_own_memory() - before) / 2**20:.0f} MiB"
    )
    return seconds, share


def _network_seconds(profile: cProfile.Profile) -> float:
    """Of the outermost calls alone."""
    total = 0.0
    for (_, _, name), (*_, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if name in _NETWORK:
            total += sum(
                spent[3]
                for (file, _, caller), spent in callers.items()
                if file.endswith("training/loop.py")
                and caller in ("_gradient", "epoch", "validate")
            )
    return total


def _own_memory() -> int:
    """Bytes of the process that no file backs (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
