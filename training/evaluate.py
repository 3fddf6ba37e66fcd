"""What a classifier is worth on held-out images: predictions and the figures made of them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from imgcls.card import ClassMetrics, Metrics
from imgcls.engine import verdicts
from training.loader import Pixels
from training.networks import Classifier

Floats = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]

BATCH = 256
_EPSILON = 1e-7
"""Probabilities are kept this far from 0 and 1 in the log-loss."""


@torch.inference_mode()
def predict(network: Classifier, pixels: Pixels, *, device: torch.device | None = None) -> Floats:
    """`uint8 [n, H, W, 3]` to probabilities `float32 [n, C]`."""
    device = device or torch.device("cpu")
    network.to(device).eval()
    parts = [
        network(torch.from_numpy(pixels[start : start + BATCH]).to(device))[0].cpu().numpy()
        for start in range(0, len(pixels), BATCH)
    ]
    result: Floats = np.concatenate(parts)
    return result


def log_loss(probabilities: Floats, targets: Targets) -> float:
    """Mean negative log-likelihood, in nats."""
    likelihood = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return float(-np.log(likelihood.clip(_EPSILON, 1.0)).mean())


def measure(
    labels: Sequence[str],
    targets: Targets,
    probabilities: Floats,
    *,
    threshold: float | None = None,
    split: str = "test",
) -> Metrics:
    """All figures of one split. Precision without a prediction and recall without an image are 0.

    `macro_f1` is the mean over the classes that occur, as true or as predicted ones.
    """
    predicted = verdicts(probabilities, threshold)
    indices = np.arange(len(labels))
    precision, recall, f1, support = precision_recall_fscore_support(
        targets, predicted, labels=indices, zero_division=0.0
    )
    matrix = confusion_matrix(targets, predicted, labels=indices)
    occurring = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
    return Metrics(
        split=split,
        images=len(targets),
        accuracy=float((predicted == targets).mean()),
        macro_f1=float(f1[occurring].mean()),
        log_loss=log_loss(probabilities, targets),
        per_class=[
            ClassMetrics(
                label=label,
                precision=float(precision[i]),
                recall=float(recall[i]),
                f1=float(f1[i]),
                support=int(support[i]),
            )
            for i, label in enumerate(labels)
        ],
        confusion_matrix=matrix.tolist(),
    )
