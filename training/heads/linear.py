"""The linear head: logistic regression by minibatch Adam for classes, ridge for numbers.

Features are standardised.

The objective is scikit-learn's `LogisticRegression`: mean log-loss + ||W||^2 / (2 C n), the bias
free. `softmax` has an output for each class; `sigmoid` is one neuron for the second of two.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.nn import functional as F

from imgcls.errors import BadRecipe, TrainingFailed
from imgcls.recipes.types import LinearHead
from training import graphs
from training.events import epoch_reporter
from training.heads.problem import FittedHead, Problem
from training.networks import probabilities
from training.reduce import moments

Floats = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FittedLinear:
    """`head` maps raw features `float32 [n, D]` to logits `[n, C]`, or `[n, 1]` for sigmoid."""

    head: nn.Linear
    history: list[dict[str, float]]


def check_head(recipe: LinearHead, classes: int) -> None:
    """Raises `BadRecipe` for one neuron and more than two classes."""
    if recipe.activation == "sigmoid" and classes != 2:
        raise BadRecipe(
            f"head.activation=sigmoid is one neuron for two classes, and the dataset has "
            f"{classes}; use head.activation=softmax."
        )


def fit_linear(wanted: LinearHead, problem: Problem) -> FittedHead:
    """`fit_head` with its graph."""
    assert problem.classes is not None
    problem.emit("training", progress=0.0, epoch=0, epochs=wanted.epochs)
    fitted = fit_head(
        problem.train,
        problem.val,
        wanted,
        classes=problem.classes,
        seed=problem.seed,
        counts=problem.counts,
        on_epoch=epoch_reporter(problem.emit, wanted.epochs),
    )

    @torch.inference_mode()
    def answer(features: Floats) -> Floats:
        logits = fitted.head(torch.from_numpy(features))
        return probabilities(logits, wanted.activation).numpy()

    weight = fitted.head.weight.detach().numpy().T
    logits = graphs.affine(np.ascontiguousarray(weight), fitted.head.bias.detach().numpy())
    parts = (logits, _activation(wanted, problem.classes))
    return FittedHead(answer, parts, fitted.history)


def _activation(wanted: LinearHead, classes: int) -> onnx.ModelProto:
    shape: graphs.Shape = ("n", classes)
    if wanted.activation == "softmax":
        return graphs.small([helper.make_node("Softmax", ["x"], ["y"], axis=1)], {}, shape, shape)
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["second"]),
        helper.make_node("Sub", ["one", "second"], ["first"]),
        helper.make_node("Concat", ["first", "second"], ["y"], axis=1),
    ]
    return graphs.small(nodes, {"one": np.ones((), np.float32)}, ("n", 1), shape)


def fit_ridge(wanted: LinearHead, problem: Problem) -> FittedHead:
    """Ridge regression on standardised features, at the strength 1 / C."""
    features, targets = problem.train
    mean, scale = moments(features)
    fitted = Ridge(alpha=1 / wanted.C)
    fitted.fit((features - mean) * scale, targets, sample_weight=problem.counts)
    weight = fitted.coef_ * scale
    bias = np.array([fitted.intercept_ - mean @ weight], np.float32)
    column = weight.astype(np.float32)[:, None]
    return FittedHead(
        lambda features: (features @ column + bias)[:, 0], (graphs.affine(column, bias),)
    )


def fit_head(
    train: tuple[Floats, Targets],
    val: tuple[Floats, Targets],
    recipe: LinearHead,
    *,
    classes: int,
    seed: int = 0,
    counts: Floats | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> FittedLinear:
    """Train on features `float32 [n, D]` and targets `int64 [n]`, which count as `counts`
    `float32 [n]` says; keep the best epoch by validation log-loss.

    Features are standardised by the training set's mean and deviation, and the returned head has
    that folded into its weights, so it takes features as they are. The learning rate falls to
    zero along a cosine. Raises `BadRecipe` (see `check_head`) and `TrainingFailed` when the loss
    is not finite.
    """
    check_head(recipe, classes)
    features, targets = torch.from_numpy(train[0]), torch.from_numpy(train[1])
    weights = None if counts is None else torch.from_numpy(counts)
    mean = features.mean(0)
    # A feature that never changes has no deviation, and tells nothing.
    deviation = features.std(0, correction=0)
    scale = torch.where(deviation > 1e-6 * (1 + mean.abs()), 1 / deviation, torch.zeros(()))
    head = nn.Linear(features.shape[1], 1 if recipe.activation == "sigmoid" else classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    count = len(features)
    per_epoch = math.ceil(count / recipe.batch_size)
    optimizer = torch.optim.Adam(head.parameters(), lr=recipe.lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * per_epoch)
    shuffle = torch.Generator().manual_seed(seed)
    history: list[dict[str, float]] = []
    best, best_loss = _folded(head, mean, scale), math.inf
    for epoch in range(1, recipe.epochs + 1):
        started, total, lr = time.perf_counter(), 0.0, schedule.get_last_lr()[0]
        for rows in torch.split(torch.randperm(count, generator=shuffle), recipe.batch_size):
            logits = head((features[rows] - mean) * scale)
            penalty = head.weight.square().sum() / (2 * recipe.C * count)
            loss = _loss(logits, targets[rows], None if weights is None else weights[rows])
            loss = loss + penalty
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        folded = _folded(head, mean, scale)
        with torch.inference_mode():
            logits = folded(torch.from_numpy(val[0]))
            truth = torch.from_numpy(val[1])
            val_loss = _loss(logits, truth).item()
            guess = probabilities(logits, recipe.activation).argmax(1)
        row: dict[str, float] = {
            "epoch": float(epoch),
            "train_loss": total / count,
            "val_loss": val_loss,
            "val_accuracy": (guess == truth).float().mean().item(),
            "lr": float(lr),
            "seconds": round(time.perf_counter() - started, 3),
        }
        history.append(row)
        if on_epoch:
            on_epoch(row)
        if not (math.isfinite(row["train_loss"]) and math.isfinite(val_loss)):
            raise TrainingFailed(
                f"The loss is not a finite number after epoch {epoch}; "
                f"try a lower learning rate than head.lr={recipe.lr:g}."
            )
        if val_loss < best_loss:
            best, best_loss = folded, val_loss
    return FittedLinear(best.eval(), history)


def _loss(logits: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """The mean of the examples, or of what they count."""
    reduction = "mean" if counts is None else "none"
    if logits.shape[1] == 1:
        truth = targets.to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits[:, 0], truth, reduction=reduction)
    else:
        loss = F.cross_entropy(logits, targets, reduction=reduction)
    return loss if counts is None else (loss * counts).mean()


@torch.no_grad()
def _folded(head: nn.Linear, mean: Tensor, scale: Tensor) -> nn.Linear:
    """`head` over `(x - mean) * scale` as one linear layer over `x`."""
    folded = nn.Linear(head.in_features, head.out_features)
    folded.weight.copy_(head.weight * scale)
    folded.bias.copy_(head.bias - folded.weight @ mean)
    return folded
