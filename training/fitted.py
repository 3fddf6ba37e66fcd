"""What every kind of recipe makes of a dataset, and what they share on the way there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from imgcls.card import Preprocessing
from imgcls.data import Dataset
from imgcls.recipes import Recipe

Floats = npt.NDArray[np.float32]

LARGEST_DEFAULT_SIDE = 128
"""Pixels that `image_size: null` never exceeds."""
SMALLEST_SIDE = 8


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a recipe makes of a dataset: a graph to be, and its answers on held-out rows."""

    write: Callable[[Path], None]
    """Exports the graph to one file of ONNX: see `export`."""
    preprocessing: Preprocessing
    history: list[dict[str, float]]
    answers: dict[str, Floats]
    """The source's own answers by split, `val` and `test`, in the order of `dataset.rows(split)`:
    probabilities `[n, C]`, or scores `[n]` of a regression."""
    embedding_dim: int
    backbone: str | None = None
    packages: tuple[str, ...] = ()
    """Distributions beyond the usual ones that took part; their versions go into the card."""


def default_side(dataset: Dataset) -> int:
    """The median side of the training images in pixels, from 8 to `LARGEST_DEFAULT_SIDE`."""
    table = dataset.index.take(dataset.rows("train"))
    sides = (table["width"].to_numpy() + table["height"].to_numpy()) / 2
    return int(np.clip(np.median(sides), SMALLEST_SIDE, LARGEST_DEFAULT_SIDE))


def output_range(dataset: Dataset, recipe: Recipe) -> tuple[float, float]:
    """What the scores of a regression are clipped to: as the recipe says, or as far as the targets
    of the training images go."""
    if recipe.output_range is not None:
        return recipe.output_range
    targets = dataset.targets(dataset.rows("train"))
    return float(targets.min()), float(targets.max())


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    chosen = device()
    if chosen.type == "cuda":
        return f"on {torch.cuda.get_device_name(chosen)}"
    return f"on the CPU, {torch.get_num_threads()} threads"
