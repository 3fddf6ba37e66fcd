"""SIFT descriptors (Lowe 2004) on a regular grid, counted as visual words (Csurka et al. 2004).

A descriptor has 4 x 4 cells of 8 orientations each. As in other dense implementations a gradient is
shared out among orientations by `cos^9` of the angle between (Lazebnik et al. 2006), and among
cells by triangular weights, which is a convolution. It is normalised, cut off at 0.2 and normalised
again. The words are the centres of k-means over descriptors of training images; an image is the
square root of the share of its descriptors that is nearest to each (Hellinger's kernel,
Arandjelovic & Zisserman 2012).
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from torch.nn import functional as F

from imgcls.errors import BadRecipe
from imgcls.recipes.types import DenseSiftFeatures
from training.features.pixels import luma

ORIENTATIONS = 8
CELLS = 4
"""Along either side of a descriptor."""
_SHARPNESS = 9
_CUT = 0.2
_QUIET = 0.02
"""Descriptors shorter than this, in units of white against black, are not blown up to length 1."""
_FLAT = 1e-4
"""Gradients shorter than this are none: grey values are whole numbers."""

Floats = npt.NDArray[np.float32]


class Descriptors(nn.Module):
    """`uint8 [n, side, side, 3]` to `float32 [n, places, 128]`, row by row.

    Raises `BadRecipe` where no descriptor fits into the image.
    """

    directions: Tensor
    smoothing: Tensor
    sobel: Tensor

    def __init__(self, wanted: DenseSiftFeatures, side: int) -> None:
        super().__init__()
        self.cell, self.step = wanted.cell, wanted.step
        room = side - CELLS * wanted.cell
        if room < 0:
            raise BadRecipe(
                f"Images of {side} px hold no descriptor of {CELLS} x {CELLS} cells of "
                f"{wanted.cell} px: take a smaller features.cell, or a larger image_size."
            )
        self.along = room // wanted.step + 1
        """Descriptors along either side."""
        angles = [2 * math.pi * number / ORIENTATIONS for number in range(ORIENTATIONS)]
        directions = torch.tensor([[math.cos(a), math.sin(a)] for a in angles])
        self.register_buffer("directions", directions.view(ORIENTATIONS, 2, 1, 1))
        across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / (8 * 255)
        self.register_buffer("sobel", torch.stack((across, across.T)).unsqueeze(1))
        ramp = 1 - torch.arange(1 - wanted.cell, wanted.cell).abs() / wanted.cell
        kernel = torch.outer(ramp, ramp) / wanted.cell**2
        self.register_buffer("smoothing", kernel.expand(ORIENTATIONS, 1, -1, -1).contiguous())

    def forward(self, images: Tensor) -> Tensor:
        grey = F.pad(luma(images), (1, 1, 1, 1), mode="replicate")
        gradient = F.conv2d(grey, self.sobel)
        magnitude = torch.sqrt((gradient * gradient).sum(1, keepdim=True))
        cosines = F.conv2d(gradient / magnitude.clamp(min=_FLAT), self.directions)
        shares = magnitude * torch.relu(cosines) ** _SHARPNESS
        pooled = F.conv2d(shares, self.smoothing, padding=self.cell - 1, groups=ORIENTATIONS)
        reach = (self.along - 1) * self.step + 1
        cells = []
        for row in range(CELLS):
            for column in range(CELLS):
                top = row * self.cell + self.cell // 2
                left = column * self.cell + self.cell // 2
                cells.append(
                    pooled[:, :, top : top + reach : self.step, left : left + reach : self.step]
                )
        found = torch.stack(cells, 1).flatten(1, 2).flatten(2).permute(0, 2, 1)
        return _normalised(_normalised(found, _QUIET).clamp(max=_CUT), 1e-6)


def _normalised(found: Tensor, least: float) -> Tensor:
    length = torch.sqrt((found * found).sum(2, keepdim=True))
    return found / length.clamp(min=least)


class DenseSift(nn.Module):
    """`uint8 [n, side, side, 3]` to `float32 [n, words]`, for words `float32 [words, 128]`."""

    words: Tensor
    lengths: Tensor
    numbers: Tensor

    def __init__(self, descriptors: Descriptors, words: Floats) -> None:
        super().__init__()
        self.descriptors = descriptors
        self.register_buffer("words", torch.from_numpy(words).T.contiguous())
        self.register_buffer("lengths", self.words.square().sum(0))
        self.register_buffer("numbers", torch.arange(len(words)))
        self.dim = len(words)

    def forward(self, images: Tensor) -> Tensor:
        found = self.descriptors(images)
        nearest = (self.lengths - 2 * found @ self.words).argmin(2, keepdim=True)
        shares = (nearest == self.numbers).to(torch.float32).mean(1)
        return torch.sqrt(shares)


def find_words(descriptors: Floats, count: int, *, seed: int) -> Floats:
    """The visual words `float32 [count, 128]` of descriptors `float32 [n, 128]`.

    Raises `BadRecipe` for more words than descriptors.
    """
    if len(descriptors) < count:
        raise BadRecipe(
            f"{count} visual words need as many descriptors, and the training images have "
            f"{len(descriptors)}: take fewer features.words, or a smaller features.step."
        )
    means = MiniBatchKMeans(
        count, random_state=seed, n_init=1, batch_size=4096, max_iter=30, reassignment_ratio=0
    )
    words: Floats = means.fit(descriptors).cluster_centers_.astype(np.float32)
    return words
