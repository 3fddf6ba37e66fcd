"""The networks of recipes: body and head, by the six-block CNN or by any architecture's name."""

from dataclasses import dataclass

from torch import nn

from imgcls.recipes.types import Architecture, CnnNetwork
from training import networks
from training.backbones import load_backbone


@dataclass(frozen=True, slots=True)
class Parts:
    """What a `networks.Network` is put together from; all of it learns until it is frozen."""

    normalise: nn.Module
    body: nn.Module
    head: nn.Module
    embedding_dim: int
    backbone: str | None = None
    packages: tuple[str, ...] = ()
    """Distributions that the body comes from, beyond the usual ones."""


def build(config: CnnNetwork | Architecture, size: int, outputs: int, *, seed: int) -> Parts:
    """The parts for `size` x `size` images and a head of so many outputs.

    The head begins at random by torch's global generator, a body without pretrained weights by
    `seed`. Raises `BadRecipe` and `WeightsUnavailable` as `load_backbone` does.
    """
    if isinstance(config, CnnNetwork):
        whole = networks.cnn(
            size,
            outputs,
            width=config.width,
            dense=config.dense,
            dropout=config.dropout,
            dense_dropout=config.dense_dropout,
        )
        return Parts(whole.normalise, whole.body, whole.head, config.dense)
    backbone = load_backbone(
        config.name, config.weights, image_size=size, seed=seed, part="network"
    )
    return Parts(
        networks.Normalise(backbone.mean, backbone.std),
        backbone.body.requires_grad_(True),
        _head(config, backbone.dim, outputs),
        backbone.dim,
        backbone.name,
        ("timm",) if backbone.library == "timm" else (),
    )


def frozen_epochs(config: CnnNetwork | Architecture, epochs: int) -> int:
    """Epochs, of so many, in which the body stands still and only the head learns."""
    if isinstance(config, CnnNetwork) or config.train == "whole":
        return 0
    return epochs if config.train == "head" else min(config.head_epochs, epochs)


def _head(config: Architecture, inputs: int, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    if config.hidden is not None:
        layers += [nn.Linear(inputs, config.hidden), nn.ReLU()]
        inputs = config.hidden
    if config.dropout:
        layers.append(nn.Dropout(config.dropout))
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
