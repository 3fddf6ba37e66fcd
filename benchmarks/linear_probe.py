"""How much quicker `linear-probe` trains than the loop that runs the frozen backbone every epoch.

    python -m benchmarks.linear_probe pets32.zip
    python -m benchmarks.linear_probe pets32.zip --images 1500 --side 96 --at-least 5

Both train the same head for 5 epochs, on the same images in the same order, and validate after
each: imgcls on features that it computes once, its cache empty; the other as most people write it,
decoding a batch, running the frozen network under `no_grad`, and taking a step with the head. Fails
where their figures differ, and below `--at-least`, the ratio of the times.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from imgcls.data import Dataset
    from imgcls.recipes.types import LinearHead
    from training.features import Extractor

    Rows = npt.NDArray[np.int64]

EPOCHS = 5
TOLERANCE = 5e-3
"""Difference of the validation losses that floats summed in another order may make."""


def main() -> None:
    parser = argparse.ArgumentParser(description="linear-probe beside the obvious loop.")
    parser.add_argument("data", type=Path, help="a folder or archive of labelled images")
    parser.add_argument("--images", type=int, default=1500, help="training images, at most")
    parser.add_argument("--side", type=int, default=96, help="pixels a side")
    parser.add_argument("--at-least", type=float, default=0.0, help="ratio of the times")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="probe-") as home:
        os.environ |= {"BENTOML_HOME": home, "IMGCLS_HOME": f"{home}/imgcls"}
        ratio = _race(arguments)
    if ratio < arguments.at_least:
        raise SystemExit(f"{ratio:.2f} times as fast, below {arguments.at_least:g}.")


def _race(arguments: argparse.Namespace) -> float:
    """Print both; returns the ratio of the times."""
    from imgcls.card import Preprocessing
    from imgcls.data import open_dataset
    from imgcls.recipes.types import BackboneFeatures, LinearHead
    from training.features import load_extractor
    from training.seeding import reproducible

    head = LinearHead(epochs=EPOCHS)
    size = Preprocessing(height=arguments.side, width=arguments.side)
    with open_dataset(arguments.data) as dataset, reproducible(0):
        train, val = dataset.rows("train"), dataset.rows("val")
        train = train[:: max(1, len(train) // arguments.images)][: arguments.images]
        wanted = BackboneFeatures(name="resnet18", weights="none")
        extractor = load_extractor(wanted, dataset, train, size, seed=0)
        print(f"{len(train):,} + {len(val):,} images at {arguments.side} px, {EPOCHS} epochs")
        ours, moments = _ours(dataset, train, val, extractor, head)
        theirs = _loop(dataset, train, val, extractor, head, moments)
    for name, (losses, seconds) in {"imgcls": ours, "every epoch": theirs}.items():
        print(f"{name:<12}{seconds:8.1f} s   " + "  ".join(f"{loss:.4f}" for loss in losses))
    if max(abs(a - b) for a, b in zip(ours[0], theirs[0], strict=True)) > TOLERANCE:
        raise SystemExit("They do not train the same head: the validation losses differ.")
    print(f"{theirs[1] / ours[1]:.2f} times as fast, with the same validation losses")
    return theirs[1] / ours[1]


def _ours(
    dataset: "Dataset", train: "Rows", val: "Rows", extractor: "Extractor", head: "LinearHead"
) -> tuple[tuple[list[float], float], tuple["npt.NDArray[np.float32]", "npt.NDArray[np.float32]"]]:
    """Validation losses and seconds; and the features' mean and scale, which the loop is given."""
    from training.features import features
    from training.heads.linear import fit_head
    from training.reduce import moments

    started = time.perf_counter()
    found = [features(extractor, dataset, rows) for rows in (train, val)]
    fitted = fit_head(
        (found[0], dataset.targets(train)),
        (found[1], dataset.targets(val)),
        head,
        classes=len(dataset.labels),
    )
    seconds = time.perf_counter() - started
    return ([row["val_loss"] for row in fitted.history], seconds), moments(found[0])


def _loop(
    dataset: "Dataset",
    train: "Rows",
    val: "Rows",
    extractor: "Extractor",
    wanted: "LinearHead",
    moments: tuple["npt.NDArray[np.float32]", "npt.NDArray[np.float32]"],
) -> tuple[list[float], float]:
    """Validation losses and seconds."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    from imgcls import images

    body = extractor.module.eval()
    mean, scale = (torch.from_numpy(np.asarray(part, np.float32)) for part in moments)
    head = torch.nn.Linear(extractor.dim, len(dataset.labels))
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam(head.parameters(), lr=wanted.lr)
    steps = wanted.epochs * -(-len(train) // wanted.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    shuffle = torch.Generator().manual_seed(0)

    def logits(rows: "Rows") -> torch.Tensor:
        batch = [images.load(dataset.read(int(row)), extractor.preprocessing) for row in rows]
        with torch.no_grad():
            found = body(torch.from_numpy(np.stack(batch)))
        return torch.as_tensor(head((found - mean) * scale))

    def truth(rows: "Rows") -> torch.Tensor:
        return torch.from_numpy(dataset.targets(rows))

    losses, started = [], time.perf_counter()
    for _ in range(wanted.epochs):
        order = torch.randperm(len(train), generator=shuffle)
        for places in torch.split(order, wanted.batch_size):
            rows = train[places.numpy()]
            penalty = head.weight.square().sum() / (2 * wanted.C * len(train))
            loss = F.cross_entropy(logits(rows), truth(rows)) + penalty
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            parts = [
                val[at : at + wanted.batch_size] for at in range(0, len(val), wanted.batch_size)
            ]
            total = sum(
                F.cross_entropy(logits(part), truth(part), reduction="sum").item() for part in parts
            )
        losses.append(total / len(val))
    return losses, time.perf_counter() - started


if __name__ == "__main__":
    main()
