"""The training loop of networks: batches, averaging, early stopping, best epoch, checkpoints.

An exponential moving average of the weights is what is validated and kept, unless the recipe says
otherwise. A run that is killed goes on from its last checkpoint, and ends with the same figures as
one that was not: every random draw comes from a generator that the checkpoint holds.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from imgcls.errors import BadRecipe, TrainingFailed
from imgcls.recipes import NetworkRecipe
from training import optimizers
from training.architectures import frozen_epochs
from training.checkpoint import Checkpoint, generators, restore_generators
from training.lr_finder import find_lr
from training.networks import Network
from training.objectives import Objective
from training.pixels import Batch, Examples

EpochReport = Callable[[dict[str, float]], None]
Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Positions = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

EVAL_BATCH = 128


@dataclass(frozen=True, slots=True)
class FittedNetwork:
    """The network of the best epoch (in eval mode, on the CPU) and a row an epoch."""

    network: Network
    history: list[dict[str, float]]


def fit(
    network: Network,
    train: Examples,
    val: Examples,
    recipe: NetworkRecipe,
    objective: Objective,
    *,
    augment: Change | None = None,
    device: torch.device | None = None,
    checkpoint: Checkpoint | None = None,
    on_epoch: EpochReport | None = None,
    on_step: Callable[[float], None] | None = None,
) -> FittedNetwork:
    """Train `network`; validate after every epoch.

    The weights of the epoch with the lowest validation loss are kept. `on_epoch` gets `{"epoch",
    "train_loss", "val_loss", ..., "lr", "seconds"}`, with the objective's other figures as
    `val_...`, for the epochs of a checkpoint too; `on_step` the share of the whole run that is done
    (0 to 1). Raises `TrainingFailed` when the loss is not finite or the GPU's memory is too small,
    `BadRecipe` for batches of one image that the network cannot train on, and `Conflict` for a
    checkpoint that is not this training's.
    """
    device = device or torch.device("cpu")
    network.to(device).to(memory_format=torch.channels_last)
    try:
        run = _Run(network, train, recipe, objective, augment, device)
        run.begin(checkpoint.load() if checkpoint else None)
        for row in run.history:
            if on_epoch:
                on_epoch(row)
        while not run.over:
            started, lr = time.perf_counter(), run.lr_now
            train_loss = run.epoch(on_step)
            figures = validate(run.judged, val, objective, device=device)
            row = {
                "epoch": float(len(run.history) + 1),
                "train_loss": train_loss,
                **{f"val_{name}": value for name, value in figures.items()},
                "lr": lr,
                "seconds": round(time.perf_counter() - started, 3),
            }
            run.end_epoch(row)
            if checkpoint:
                checkpoint.save(run.state())
            if on_epoch:
                on_epoch(row)
    except torch.OutOfMemoryError as err:
        raise TrainingFailed(
            f"The GPU's memory is too small for batch_size={recipe.batch_size} at this image_size: "
            "halve batch_size and double optimizer.accumulate, which makes the same steps."
        ) from err
    except ValueError as err:
        if "more than 1 value per channel" not in str(err):
            raise
        raise BadRecipe(
            "A batch of one image leaves nothing to compare to the network's batch normalisation: "
            "take another batch_size (2 or more), or a larger image_size."
        ) from err
    network.cpu().load_state_dict(run.best)
    return FittedNetwork(network.eval(), run.history)


class _Run:
    """All that changes while a network is trained."""

    def __init__(
        self,
        network: Network,
        train: Examples,
        recipe: NetworkRecipe,
        objective: Objective,
        augment: Change | None,
        device: torch.device,
    ) -> None:
        self._network, self._train, self._recipe = network, train, recipe
        self._objective, self._augment, self._device = objective, augment, device
        together = recipe.batch_size * recipe.optimizer.accumulate
        self._per_epoch = math.ceil(len(train) / together)
        self._frozen = frozen_epochs(recipe.network, recipe.epochs)
        self._half = _half(device) if recipe.precision == "auto" else None
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._half is torch.float16)
        self._order = np.random.default_rng(recipe.seed)
        # The average looks back over about an epoch, whatever the epoch's length.
        decay = min(0.999, 1 - 1 / (1 + self._per_epoch))
        self._average = _Average(network, decay) if recipe.average else None
        self._lr = math.nan
        self._best_loss = math.inf
        self.best: dict[str, Tensor] = {}
        """The state dict of the best epoch, on the CPU."""
        self.history: list[dict[str, float]] = []

    def begin(self, state: dict[str, Any] | None) -> None:
        """Start at the first epoch, or behind the one that `state` was taken after."""
        wanted = self._recipe.optimizer.lr
        if state is not None:
            self._lr = state["lr"]
        else:
            self._lr = self._found_lr() if wanted == "auto" else wanted
        self._optimizer = self._new_optimizer(self._network, self._lr)
        self._schedule = optimizers.schedule(
            self._optimizer,
            self._recipe.schedule,
            steps=self._recipe.epochs * self._per_epoch,
            per_epoch=self._per_epoch,
        )
        if state is not None:
            self._restore(state)

    @property
    def judged(self) -> Network:
        """What is validated and kept."""
        return self._average.network if self._average else self._network

    @property
    def lr_now(self) -> float:
        """Of the head."""
        return float(self._schedule.get_last_lr()[-1])

    @property
    def over(self) -> bool:
        done, patience = len(self.history), self._recipe.early_stop.patience
        if done == self._recipe.epochs:
            return True
        losses = [row["val_loss"] for row in self.history]
        return bool(patience and losses) and done - 1 - int(np.argmin(losses)) >= patience

    def epoch(self, on_step: Callable[[float], None] | None) -> float:
        """Train on every image once; the mean loss."""
        done = len(self.history)
        self._prepare(self._network, frozen=done < self._frozen)
        steps = self._steps()
        batches = _ahead(self._train, list(itertools.chain.from_iterable(steps)))
        total = 0.0
        for number, parts in enumerate(steps):
            images = sum(map(len, parts))
            for part in parts:
                share = len(part) / images
                total += self._gradient(self._network, next(batches), share) * images
            self._scaler.step(self._optimizer)
            self._scaler.update()
            self._optimizer.zero_grad(set_to_none=True)
            self._schedule.step()
            if self._average:
                self._average.update(self._network)
            if on_step:
                on_step((done + (number + 1) / len(steps)) / self._recipe.epochs)
        return total / len(self._train)

    def end_epoch(self, row: dict[str, float]) -> None:
        """Raises `TrainingFailed` where a loss is not finite."""
        if not (math.isfinite(row["train_loss"]) and math.isfinite(row["val_loss"])):
            raise TrainingFailed(
                f"The loss is not a finite number after epoch {int(row['epoch'])}; "
                f"try a lower learning rate than optimizer.lr={self._lr:g}."
            )
        self.history.append(row)
        if row["val_loss"] < self._best_loss:
            self._best_loss = row["val_loss"]
            state = self.judged.state_dict()
            self.best = {k: v.detach().cpu().clone() for k, v in state.items()}

    def state(self) -> dict[str, Any]:
        """All that `begin` needs to go on as if nothing had happened."""
        return {
            "network": self._network.state_dict(),
            "average": self._average.state() if self._average else None,
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "order": self._order.bit_generator.state,
            "generators": generators(),
            "lr": self._lr,
            "best": self.best,
            "best_loss": self._best_loss,
            "history": self.history,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._network.load_state_dict(state["network"])
        if self._average:
            self._average.restore(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        self._order.bit_generator.state = state["order"]
        restore_generators(state["generators"])
        self.best, self._best_loss = state["best"], state["best_loss"]
        self.history = state["history"]

    def _steps(self) -> list[list[Positions]]:
        """The images in a new order: the batches of each step."""
        order = self._order.permutation(len(self._train))
        size = self._recipe.batch_size
        return [
            np.array_split(step, math.ceil(len(step) / size))
            for step in np.array_split(order, self._per_epoch)
        ]

    def _gradient(self, network: Network, batch: Batch, share: float) -> float:
        """Add a batch's part of a step to the gradients; its part of the step's mean loss."""
        images, truth = batch.images.to(self._device), batch.truth.to(self._device)
        counts = None if batch.counts is None else batch.counts.to(self._device)
        if self._augment:
            images, truth = self._augment(images, truth)
        with torch.autocast(self._device.type, self._half, enabled=self._half is not None):
            logits = network.logits(images)
        error = self._objective.loss(logits.float(), truth, counts) * share
        torch.autograd.backward(self._scaler.scale(error))
        return error.item()

    def _prepare(self, network: Network, *, frozen: bool) -> None:
        network.train()
        network.body.requires_grad_(not frozen)
        if frozen:  # its normalisation statistics stay too
            network.body.eval()

    def _new_optimizer(self, network: Network, lr: float) -> torch.optim.Optimizer:
        body_lr = getattr(self._recipe.network, "body_lr", 1.0)
        return optimizers.optimizer(network, self._recipe.optimizer, lr, body_lr=body_lr)

    def _found_lr(self) -> float:
        """By trials on a copy."""
        trial = copy.deepcopy(self._network)
        self._prepare(trial, frozen=self._frozen > 0)
        optimizer = self._new_optimizer(trial, 1.0)
        parts = itertools.cycle(itertools.chain.from_iterable(self._steps()))

        def step() -> float:
            loss = self._gradient(trial, self._train.batch(next(parts)), 1.0)
            self._scaler.step(optimizer)
            self._scaler.update()
            optimizer.zero_grad(set_to_none=True)
            return loss

        return find_lr(optimizer, step)


class _Average:
    """Exponential moving average of a network, its normalisation statistics included.

    The first steps count less far back (as in TensorFlow's `ExponentialMovingAverage`), so the
    average does not remember the random start.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay
        self._steps = 0
        self._state = list(self.network.state_dict().values())

    @torch.no_grad()
    def update(self, network: Network) -> None:
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for mean, value in zip(self._state, network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "steps": self._steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._steps = state["steps"]


@torch.inference_mode()
def validate(
    network: Network, examples: Examples, objective: Objective, *, device: torch.device
) -> dict[str, float]:
    """The objective's figures, as means over the images."""
    network.eval()
    sums: dict[str, float] = {}
    for images, truth, _ in examples.batches(EVAL_BATCH):
        logits = network.logits(images.to(device))
        for name, value in objective.figures(logits, truth.to(device)).items():
            sums[name] = sums.get(name, 0.0) + value
    return {name: value / len(examples) for name, value in sums.items()}


@torch.inference_mode()
def answers(network: Network, examples: Examples, *, device: torch.device) -> Floats:
    """What the network says of the images: `float32 [n, C]` or `[n]`."""
    network.to(device).eval()
    parts = [
        network(images.to(device))[0].cpu().numpy() for images, _, _ in examples.batches(EVAL_BATCH)
    ]
    network.cpu()
    result: Floats = np.concatenate(parts)
    return result


def _half(device: torch.device) -> torch.dtype | None:
    """The 16-bit type that a device trains in; None on the CPU, where it would be no quicker."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _ahead(examples: Examples, batches: Sequence[Positions]) -> Iterator[Batch]:
    """The batches, each read while the one before is worked on."""
    with ThreadPoolExecutor(1, "batches") as pool:
        following = pool.submit(examples.batch, batches[0])
        for positions in batches[1:]:
            ready, following = following, pool.submit(examples.batch, positions)
            yield ready.result()
        yield following.result()
