"""The training loop of networks: batches, learning rate, averaging, early stopping, best epoch.

AdamW (Loshchilov & Hutter 2019) under a one-cycle learning rate (Smith & Topin 2018), label
smoothing, and an exponential moving average of the weights, which is what is validated and kept.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgcls.errors import TrainingFailed
from imgcls.recipes import NetworkRecipe
from training.networks import Classifier

EpochReport = Callable[[dict[str, float]], None]
Pixels = npt.NDArray[np.uint8]
Targets = npt.NDArray[np.int64]

WARM_UP = 0.15
"""Share of the steps in which the learning rate rises."""
EVAL_BATCH = 256


@dataclass(frozen=True, slots=True)
class FittedNetwork:
    """The network of the best epoch (in eval mode, on the CPU) and a row an epoch."""

    network: Classifier
    history: list[dict[str, float]]


def class_weights(targets: Targets, classes: int) -> npt.NDArray[np.float32]:
    """Inverse class frequency, as scikit-learn's `balanced`: `n / (classes * count)`.

    A class without a training image weighs 1; it does not enter the loss anyway.
    """
    counts = np.bincount(targets, minlength=classes)
    weights = len(targets) / (classes * np.maximum(counts, 1))
    return np.where(counts == 0, 1.0, weights).astype(np.float32)


def fit(
    network: Classifier,
    train: tuple[Pixels, Targets],
    val: tuple[Pixels, Targets],
    recipe: NetworkRecipe,
    *,
    classes: int,
    augment: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    device: torch.device | None = None,
    on_epoch: EpochReport | None = None,
    on_step: Callable[[float], None] | None = None,
) -> FittedNetwork:
    """Train `network` on `uint8 [n, H, W, 3]` and `int64 [n]`; validate after every epoch.

    The weights of the epoch with the lowest validation log-loss are kept. `on_epoch` gets
    `{"epoch", "train_loss", "val_loss", "val_accuracy", "lr", "seconds"}`; `on_step` the share of
    the whole run that is done (0 to 1). Raises `TrainingFailed` when the loss is not finite.
    """
    device = device or torch.device("cpu")
    images, targets = train
    network.to(device).to(memory_format=torch.channels_last)
    weights = (
        class_weights(targets, classes) if recipe.loss.class_weights else np.ones(classes, "f4")
    )
    loss_of = nn.CrossEntropyLoss(
        torch.from_numpy(weights).to(device), label_smoothing=recipe.loss.label_smoothing
    )
    lr_max, patience = float(recipe.optimizer.lr), recipe.early_stop.patience
    per_epoch = math.ceil(len(images) / recipe.batch_size)
    steps = recipe.epochs * per_epoch
    optimizer = torch.optim.AdamW(
        _decayed(network, recipe.optimizer.weight_decay), lr=lr_max, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr_max, total_steps=steps + 1, pct_start=WARM_UP
    )
    # The average looks back over about an epoch, whatever the epoch's length.
    decay = min(0.999, 1 - 1 / (1 + per_epoch))
    average = _Average(network, decay)
    order_of = np.random.default_rng(recipe.seed)
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    best_loss, best_epoch, step = math.inf, 0, 0
    for epoch in range(1, recipe.epochs + 1):
        started, total, lr = time.perf_counter(), 0.0, schedule.get_last_lr()[0]
        network.train()
        order = order_of.permutation(len(images))
        for rows in np.array_split(order, per_epoch):
            batch = torch.from_numpy(images[np.sort(rows)]).to(device)
            truth = torch.from_numpy(targets[np.sort(rows)]).to(device)
            if augment:
                batch, truth = augment(batch, truth)
            error = loss_of(network.logits(batch), truth)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(error)
            optimizer.step()
            schedule.step()
            average.update(network)
            total += error.item() * len(rows)
            step += 1
            if on_step:
                on_step(step / steps)
        val_loss, val_accuracy = _validate(average.network, *val, device=device)
        row: dict[str, float] = {
            "epoch": float(epoch),
            "train_loss": total / len(images),
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "lr": float(lr),
            "seconds": round(time.perf_counter() - started, 3),
        }
        history.append(row)
        if on_epoch:
            on_epoch(row)
        if not (math.isfinite(row["train_loss"]) and math.isfinite(val_loss)):
            raise TrainingFailed(
                f"The loss is not a finite number after epoch {epoch}; "
                f"try a lower learning rate than optimizer.lr={lr_max:g}."
            )
        if val_loss < best_loss:
            best_loss, best_epoch = val_loss, epoch
            best = {k: v.detach().cpu().clone() for k, v in average.network.state_dict().items()}
        elif patience and epoch - best_epoch >= patience:
            break
    network.cpu().load_state_dict(best)
    return FittedNetwork(network.eval(), history)


class _Average:
    """Exponential moving average of a network, its normalisation statistics included.

    The first steps count less far back (as in TensorFlow's `ExponentialMovingAverage`), so the
    average does not remember the random start.
    """

    def __init__(self, network: Classifier, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay
        self._steps = 0
        self._state = list(self.network.state_dict().values())

    @torch.no_grad()
    def update(self, network: Classifier) -> None:
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for mean, value in zip(self._state, network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


def _decayed(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices and kernels only, not on biases and normalisation."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    rest = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]


@torch.inference_mode()
def _validate(
    network: Classifier, images: Pixels, targets: Targets, *, device: torch.device
) -> tuple[float, float]:
    """Log-loss and accuracy."""
    network.eval()
    loss, right = 0.0, 0
    for start in range(0, len(images), EVAL_BATCH):
        batch = torch.from_numpy(images[start : start + EVAL_BATCH]).to(device)
        truth = torch.from_numpy(targets[start : start + EVAL_BATCH]).to(device)
        logits = network.logits(batch)
        loss += F.cross_entropy(logits, truth, reduction="sum").item()
        right += int((logits.argmax(1) == truth).sum())
    return loss / len(images), right / len(images)
