"""The module that a recipe's `features` asks for, and the ONNX graph of it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from imgcls.card import Preprocessing
from imgcls.recipes.types import (
    BackboneFeatures,
    DenseSiftFeatures,
    Features,
    HogFeatures,
)
from training.backbones import load_backbone
from training.export import module_graph
from training.features import cache
from training.features.dense_sift import DenseSift, Descriptors, find_words
from training.features.hog import Hog
from training.features.pixels import Pixels
from training.loader import Rows, Source, iter_pixels
from training.networks import Normalise

Floats = npt.NDArray[np.float32]

_REVISION = 1
"""Goes up when what the modules of this package compute changes."""
_WORD_IMAGES = 1_000
"""Training images, at most, whose descriptors the visual words are the means of."""
_PER_IMAGE = 64
"""Descriptors of each that are drawn for that."""


class HashedSource(Source, Protocol):
    def content_hash(self, row: int) -> str | None: ...


@dataclass(frozen=True)
class Extractor:
    """What turns images of one size into features; see `load_extractor`."""

    module: nn.Module
    """`uint8 [n, H, W, 3]` to `float32 [n, dim]`."""
    dim: int
    preprocessing: Preprocessing
    identity: list[Any]
    """All that the features depend on beside the images and the software; JSON."""
    backbone: str | None = None
    packages: tuple[str, ...] = ()
    fitted: bool = False
    """Whether it depends on the training images, as visual words do."""

    @cached_property
    def graph(self) -> onnx.ModelProto:
        """Input `images` uint8 `[n, H, W, 3]`, output `features` float32 `[n, dim]`."""
        return module_graph(self.module, self.preprocessing, ["features"]).model_proto


def load_extractor(
    wanted: Features,
    source: HashedSource,
    train: Rows,
    preprocessing: Preprocessing,
    *,
    seed: int = 0,
) -> Extractor:
    """Build what `wanted` says; dense SIFT finds its visual words in the rows `train`.

    Raises `BadRecipe` where the features do not suit the image size, and what `load_backbone`
    raises.
    """
    side = preprocessing.height
    identity: list[Any] = [_REVISION, wanted.model_dump(mode="json"), preprocessing.model_dump()]
    if isinstance(wanted, BackboneFeatures):
        found = load_backbone(wanted.name, wanted.weights, image_size=side, seed=seed)
        module = nn.Sequential(Normalise(found.mean, found.std), found.body).eval()
        # A file of weights is what is in it, not where it lies.
        identity[1] = [found.library, found.name, found.weights_hash, found.mean, found.std]
        packages = ("timm",) if found.library == "timm" else ()
        return Extractor(module, found.dim, preprocessing, identity, wanted.name, packages)
    if isinstance(wanted, HogFeatures):
        hog = Hog(wanted, side)
        return Extractor(hog.eval(), hog.dim, preprocessing, identity)
    if isinstance(wanted, DenseSiftFeatures):
        descriptors = Descriptors(wanted, side).eval()
        words = _words(descriptors, wanted.words, source, train, preprocessing, identity, seed)
        identity = [*identity, hashlib.sha256(words.tobytes()).hexdigest()]
        sift = DenseSift(descriptors, np.array(words))
        return Extractor(sift.eval(), sift.dim, preprocessing, identity, fitted=True)
    return Extractor(Pixels(), side * preprocessing.width * 3, preprocessing, identity)


def _words(
    descriptors: Descriptors,
    count: int,
    source: HashedSource,
    train: Rows,
    preprocessing: Preprocessing,
    identity: list[Any],
    seed: int,
) -> Floats:
    """The visual words `float32 [count, 128]` of some training images, spread evenly."""
    rows = np.asarray(train)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _WORD_IMAGES)).astype(np.int64)]

    def fill(words: Floats) -> None:
        draw = np.random.default_rng(seed)
        drawn = []
        for pixels in iter_pixels(source, rows, preprocessing):
            with torch.inference_mode():
                found = descriptors(torch.from_numpy(pixels)).numpy()
            order = draw.permuted(np.tile(np.arange(found.shape[1]), (len(found), 1)), axis=1)
            chosen = order[:, :_PER_IMAGE, None]
            drawn.append(np.take_along_axis(found, chosen, 1).reshape(-1, found.shape[2]))
        words[:] = find_words(np.concatenate(drawn), count, seed=seed)

    config = ["words", count, seed, *identity]
    name = cache.key(config, (source.content_hash(int(row)) for row in rows))
    return cache.stored(name, (count, 128), fill)
