"""What is trained and exported: normalisation, body and head as one torch module.

A `Network` takes `uint8 [n, H, W, 3]` and gives `(answers, embedding)`, which is the contract of
the exported graph: a `Classifier` answers with probabilities, a `Regressor` with scores. What
happens to pixels before (decoding, resizing) is `imgcls.images`; nothing between the two is left
to chance.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CHANNELS = (8, 16, 32, 64, 96, 128)
"""Channels of the six blocks of the cartoon-characters network, at width 1."""
DROPOUT_BLOCKS = 4
"""The first blocks, which carry dropout."""
_SMALLEST_SIDE = 3
"""Feature maps are pooled down to this side and no further: 224 px pooled six times gives 3."""

Activation = Literal["softmax", "sigmoid"]


class Normalise(nn.Module):
    """`uint8 [n, H, W, 3]` to `float32 [n, 3, H, W]`: `(x / 255 - mean) / std` per channel."""

    mean: Tensor
    scale: Tensor

    def __init__(
        self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / (255 * torch.tensor(std).view(1, 3, 1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        return (images.permute(0, 3, 1, 2).to(torch.float32) - self.mean) * self.scale


class Network(nn.Module, ABC):
    """Images to answers, in one module.

    `body` maps normalised `float32 [n, 3, H, W]` to the embedding `float32 [n, D]`; `head` maps
    the embedding to what the loss is computed from.
    """

    answer: ClassVar[str]
    """The name of the graph's first output."""

    def __init__(self, normalise: nn.Module, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.body = body
        self.head = head

    def logits(self, images: Tensor) -> Tensor:
        """`uint8 [n, H, W, 3]` to the head's `float32 [n, outputs]`."""
        logits: Tensor = self.head(self.body(self.normalise(images)))
        return logits

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`uint8 [n, H, W, 3]` to answers (see `answers`) and embedding `float32 [n, D]`."""
        embedding = self.body(self.normalise(images))
        return self.answers(self.head(embedding)), embedding

    @abstractmethod
    def answers(self, logits: Tensor) -> Tensor:
        """What the head gave, as it is served."""


class Classifier(Network):
    """The head has an output a class, or one where `activation` is `sigmoid`: the one neuron's
    output is then the probability of the second of two classes."""

    answer = "probabilities"

    def __init__(
        self,
        normalise: nn.Module,
        body: nn.Module,
        head: nn.Module,
        activation: Activation = "softmax",
    ) -> None:
        super().__init__(normalise, body, head)
        self.activation = activation

    def answers(self, logits: Tensor) -> Tensor:
        """Probabilities `float32 [n, C]`."""
        return probabilities(logits, self.activation)


class Regressor(Network):
    """The head has one output: the score, counted from `middle` in steps of `spread`."""

    answer = "score"

    def __init__(
        self,
        normalise: nn.Module,
        body: nn.Module,
        head: nn.Module,
        *,
        middle: float,
        spread: float,
        output_range: tuple[float, float],
    ) -> None:
        super().__init__(normalise, body, head)
        self.middle, self.spread, self.output_range = middle, spread, output_range

    def answers(self, logits: Tensor) -> Tensor:
        """Scores `float32 [n]` within `output_range`, in units of the target."""
        return (logits[:, 0] * self.spread + self.middle).clamp(*self.output_range)


def probabilities(logits: Tensor, activation: Activation) -> Tensor:
    """Logits to `float32 [n, C]` that sum to 1 in each row."""
    if activation == "sigmoid":
        second = torch.sigmoid(logits)
        return torch.cat((1 - second, second), dim=1)
    return torch.softmax(logits, dim=1)


class GlobalMean(nn.Module):
    """`[n, c, h, w]` to `[n, c]`; unlike torch's adaptive pooling deterministic on CUDA too."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3))


def cnn(
    size: int,
    classes: int,
    *,
    width: float,
    dense: int,
    dropout: float,
    dense_dropout: float = 0.0,
) -> Classifier:
    """The six-block network for `size` x `size` images, at any size from 8.

    Each block is 3 x 3 convolution, ReLU, 2 x 2 max-pool, batch norm, and dropout on the first
    four; the mean over the last feature map goes through two dense layers, the second of which is
    the embedding. Small images are pooled in fewer blocks (see `pooled_blocks`).
    """
    channels = [max(1, round(c * width)) for c in CHANNELS]
    pooled = pooled_blocks(size)
    layers: list[nn.Module] = []
    before = 3
    for block, after in enumerate(channels):
        layers.append(nn.Conv2d(before, after, 3, padding=1))
        if block in pooled:  # before ReLU: the same result from a quarter of the work
            layers.append(nn.MaxPool2d(2))
        layers += [nn.ReLU(), nn.BatchNorm2d(after)]
        if block < DROPOUT_BLOCKS and dropout > 0:
            layers.append(nn.Dropout(dropout))
        before = after
    layers += [
        GlobalMean(),
        nn.Linear(before, dense),
        nn.ReLU(),
        nn.Dropout(dense_dropout),
        nn.Linear(dense, dense),
        nn.ReLU(),
    ]
    return Classifier(Normalise(), nn.Sequential(*layers), nn.Linear(dense, classes))


def pooled_blocks(size: int) -> set[int]:
    """Which of the six blocks pool, spread evenly: all six from 192 px, three at 32, one at 8.

    The last feature map then measures 3 to 5 pixels a side (more only above 383 px).
    """
    count = min(len(CHANNELS), int(math.log2(size / _SMALLEST_SIDE)))
    return {i * len(CHANNELS) // count for i in range(count)}
