"""What networks are trained for: the loss of a batch, and the figures of held-out images."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn import functional as F

Floats = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]

DENSITY_BINS = 100
"""Into which the range of a regression's targets is cut to see how densely they lie."""
_DENSITY_SIGMA, _DENSITY_RADIUS = 2, 2
"""Of the Gaussian kernel, in bins: the values of the paper's own code."""
_LARGEST_WEIGHT = 10.0
"""In multiples of the mean weight, about: a lone outlier does not rule the training."""


class Objective(Protocol):
    """Truths are the dataset's targets of a batch, as `training.augment` leaves them."""

    def loss(self, logits: Tensor, truth: Tensor, counts: Tensor | None = None) -> Tensor:
        """The mean of a batch, which is minimised; `counts` `float32 [n]` is what each image
        counts, all alike without."""

    def figures(self, logits: Tensor, truth: Tensor) -> dict[str, float]:
        """Sums over the images: `loss`, by which the best epoch is chosen, and what people ask
        for."""


class Classification:
    """Cross-entropy, weighted by class; figures are the log-loss and the accuracy."""

    def __init__(self, weights: Floats, label_smoothing: float = 0.0) -> None:
        """`weights` `float32 [classes]`."""
        self._weights = torch.from_numpy(weights)
        self._label_smoothing = label_smoothing

    def loss(self, logits: Tensor, truth: Tensor, counts: Tensor | None = None) -> Tensor:
        """`truth` is `int64 [n]`, or shares of the classes `float32 [n, classes]`."""
        weights = self._weights = self._weights.to(logits.device)
        smoothing = self._label_smoothing
        if counts is None:
            return F.cross_entropy(logits, truth, weights, label_smoothing=smoothing)
        each = F.cross_entropy(logits, truth, weights, reduction="none", label_smoothing=smoothing)
        return (each * counts).mean()

    def figures(self, logits: Tensor, truth: Tensor) -> dict[str, float]:
        return {
            "loss": F.cross_entropy(logits, truth, reduction="sum").item(),
            "accuracy": float((logits.argmax(1) == truth).sum()),
        }


class Regression:
    """Squared error in units of the targets' spread, weighted by the density of the targets."""

    def __init__(
        self, middle: float, spread: float, weight_of: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """`weight_of` gives the weights of targets, `float32 [n]` both; without it all weigh 1."""
        self.middle, self.spread = middle, spread
        self._weight_of = weight_of

    def loss(self, logits: Tensor, truth: Tensor, counts: Tensor | None = None) -> Tensor:
        """`truth` `float32 [n]`, in units of the target."""
        squares = (logits[:, 0] - (truth - self.middle) / self.spread) ** 2
        if self._weight_of is not None:
            squares = squares * self._weight_of(truth)
        return (squares if counts is None else squares * counts).mean()

    def figures(self, logits: Tensor, truth: Tensor) -> dict[str, float]:
        error = logits[:, 0] - (truth - self.middle) / self.spread
        return {
            "loss": (error**2).sum().item(),
            "mae": error.abs().sum().item() * self.spread,
        }


def class_weights(targets: Targets, classes: int) -> Floats:
    """Inverse class frequency, as scikit-learn's `balanced`: `n / (classes * count)`.

    A class without a training image weighs 1; it does not enter the loss anyway.
    """
    counts = np.bincount(targets, minlength=classes)
    weights = len(targets) / (classes * np.maximum(counts, 1))
    return np.where(counts == 0, 1.0, weights).astype(np.float32)


def middle_and_spread(targets: Floats) -> tuple[float, float]:
    """Median and standard deviation, by which targets are normalised; 1 where they are all one."""
    return float(np.median(targets)), float(targets.std(dtype=np.float64)) or 1.0


class DensityWeights:
    """Weights of targets: the inverse of the density with which they lie in the training data.

    Label distribution smoothing (LDS; Yang et al. 2021, "Delving into Deep Imbalanced Regression",
    section 3.1): a histogram of the targets, smoothed by a Gaussian kernel, since neighbouring
    targets stand in for each other. The mean over the training images is 1.
    """

    def __init__(self, targets: Floats) -> None:
        """`targets` `float32 [n]` of the training images."""
        self.low, high = float(targets.min()), float(targets.max())
        self.width = (high - self.low) / DENSITY_BINS or 1.0
        counts = np.bincount(self._bins(targets), minlength=DENSITY_BINS).astype(np.float64)
        density = gaussian_filter1d(counts, _DENSITY_SIGMA, mode="constant", radius=_DENSITY_RADIUS)
        weights = np.where(counts > 0, 1 / np.maximum(density, 1e-9), 0.0)
        weights = np.minimum(weights * len(targets) / (weights @ counts), _LARGEST_WEIGHT)
        self._weights = weights * len(targets) / (weights @ counts)

    def __call__(self, targets: Tensor) -> Tensor:
        """`float32 [n]` of `float32 [n]`, on the same device."""
        bins = self._bins(targets.cpu().numpy())
        return torch.from_numpy(self._weights[bins].astype(np.float32)).to(targets.device)

    def _bins(self, targets: Floats) -> Targets:
        bins = np.floor((targets.astype(np.float64) - self.low) / self.width)
        return bins.clip(0, DENSITY_BINS - 1).astype(np.int64)
