"""Optimizers and learning-rate schedules, as recipes name them."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from imgcls.recipes.types import Optimizer, Schedule
from training.networks import Network


def optimizer(
    network: Network, config: Optimizer, lr: float, *, body_lr: float = 1.0
) -> torch.optim.Optimizer:
    """Steps of `lr` for the head and of `body_lr * lr` for the body.

    Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) or SGD with Nesterov's momentum.
    """
    decay = config.weight_decay
    groups = [
        *_groups(network.body.parameters(), lr * body_lr, decay),
        *_groups(network.head.parameters(), lr, decay),
    ]
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, lr=lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True
        )
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=lr, fused=True)


def schedule(
    optimizer: torch.optim.Optimizer, config: Schedule, *, steps: int, per_epoch: int
) -> LRScheduler:
    """The learning rate of each of so many steps, `per_epoch` of them an epoch.

    `one-cycle` is Smith & Topin's (2018), which moves the momentum the other way too.
    """
    if config.name == "one-cycle":
        # The peak must not lie on the first step, unless there is nothing to rise before it.
        rise = max(config.warm_up, 2 / (steps + 1)) if config.warm_up else 0.0
        return OneCycleLR(
            optimizer,
            [group["lr"] for group in optimizer.param_groups],
            total_steps=steps + 1,
            pct_start=min(1.0, rise),
            cycle_momentum=any(group.get("momentum", 1) for group in optimizer.param_groups),
        )
    return LambdaLR(optimizer, lambda step: height(config, step, steps, per_epoch))


def height(config: Schedule, step: int, steps: int, per_epoch: int) -> float:
    """The learning rate of a step as a share of the full one; of all schedules but `one-cycle`."""
    warm_up = round(config.warm_up * steps)
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    if config.name == "cosine":
        return (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2
    if config.name == "exponential":
        return float(config.decay ** (step // per_epoch))
    if config.name == "steps":
        return float(config.decay ** sum(step >= share * steps for share in config.at))
    return 1.0


def _groups(
    parameters: Iterable[nn.Parameter], lr: float, weight_decay: float
) -> list[dict[str, object]]:
    """Weight decay on matrices and kernels only, not on biases and normalisation."""
    together = list(parameters)
    return [
        {"params": [p for p in together if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in together if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]
