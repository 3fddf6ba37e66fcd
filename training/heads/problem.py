"""What a head is given, and what it must give back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from training.events import OnEvent, ignore

Floats = npt.NDArray[np.float32]
Targets = npt.NDArray[Any]
"""Classes `int64 [n]` from 0 to `classes - 1`, or numbers `float32 [n]` around 0."""
Examples = tuple[Floats, Targets]
"""Features `float32 [n, D]` and their targets."""


@dataclass(frozen=True, slots=True)
class Problem:
    train: Examples
    val: Examples
    classes: int | None
    """None is a regression."""
    seed: int = 0
    emit: OnEvent = ignore
    """Told how far the stage `training` is."""
    counts: Floats | None = None
    """`float32 [n]`, above 0: what each training example counts, 1 on average; None where all count
    alike."""


@dataclass(frozen=True, slots=True)
class FittedHead:
    answer: Callable[[Floats], Floats]
    """Features `float32 [n, D]` to probabilities `float32 [n, C]` or numbers `[n]`, by the library
    that it was fitted with."""
    parts: tuple[onnx.ModelProto, ...]
    """The same, as graphs one after another (see `graphs.joined`)."""
    history: list[dict[str, float]] = field(default_factory=list)
    """A row an epoch, where there are any."""
    packages: tuple[str, ...] = ()
    """Distributions that took part."""
