"""A learning rate to begin with, by trying them out (Smith 2017, "Cyclical Learning Rates")."""

import math
from collections.abc import Callable

import torch

TRIALS = 60
"""Steps, each with a higher learning rate than the last."""
LOWEST, HIGHEST = 1e-6, 1.0
_SMOOTHING = 0.8
_EXPLODED = 3.0
"""Times the lowest loss, at which higher rates need no trial."""
_BACK = 10.0
"""The rate at which the loss is lowest is about to be too high: take this part of it."""


def find_lr(optimizer: torch.optim.Optimizer, step: Callable[[], float]) -> float:
    """A tenth of the learning rate at which the smoothed loss is lowest.

    `step` trains one batch with `optimizer` and returns its loss; what it trains is spoilt
    afterwards. Groups of the optimizer keep their rates' proportions, the highest being what is
    found.
    """
    top = max(group["lr"] for group in optimizer.param_groups)
    shares = [group["lr"] / top for group in optimizer.param_groups]
    lowest, chosen, smooth, seen = math.inf, LOWEST * _BACK, 0.0, 0.0
    for trial in range(TRIALS):
        lr = LOWEST * (HIGHEST / LOWEST) ** (trial / (TRIALS - 1))
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = lr * share
        loss = step()
        smooth = _SMOOTHING * smooth + (1 - _SMOOTHING) * loss
        seen = _SMOOTHING * seen + (1 - _SMOOTHING)
        if not math.isfinite(smooth) or smooth / seen > _EXPLODED * lowest:
            break
        if smooth / seen < lowest:
            lowest, chosen = smooth / seen, lr
    return chosen / _BACK
