"""Histograms of oriented gradients (Dalal & Triggs 2005), equal to scikit-image's `hog`.

Gradients are differences of the neighbours on either side, 0 at the border. A cell's histogram is
the mean magnitude by orientation, over half a turn; blocks of cells overlap by all but one cell and
are normalised by L2-Hys. Written as a module so that training and serving run the same graph.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgcls.errors import BadRecipe
from imgcls.recipes.types import HogFeatures
from training.features.pixels import luma

_EPSILON = 1e-5
_HYS = 0.2
"""Components of a normalised block are cut off here, and normalised again."""


class Hog(nn.Module):
    """`uint8 [n, side, side, 3]` to `float32 [n, dim]`.

    The order is scikit-image's: block row, block column, cell row, cell column, orientation; of
    `stacked` colours one after the other. Raises `BadRecipe` where no block fits into the image.
    """

    def __init__(self, wanted: HogFeatures, side: int) -> None:
        super().__init__()
        self.wanted = wanted
        cells = side // wanted.cell
        self.blocks = cells - wanted.block + 1
        """Along either side."""
        if self.blocks < 1:
            raise BadRecipe(
                f"Images of {side} px hold no block of {wanted.block} cells of {wanted.cell} px: "
                "take a smaller features.cell or features.block, or a larger image_size."
            )
        described = 3 if wanted.channels == "stacked" else 1
        self.dim = described * self.blocks**2 * wanted.block**2 * wanted.orientations

    def forward(self, images: Tensor) -> Tensor:
        if self.wanted.channels == "grey":
            pixels = luma(images)
        else:
            pixels = images.permute(0, 3, 1, 2).to(torch.float32)
        down = F.pad(pixels[:, :, 2:] - pixels[:, :, :-2], (0, 0, 1, 1))
        across = F.pad(pixels[..., 2:] - pixels[..., :-2], (1, 1))
        if self.wanted.channels == "strongest":
            down, across = _strongest(down, across)
        cells = self._histograms(down, across)
        return self._blocks(cells).flatten(1)

    def _histograms(self, down: Tensor, across: Tensor) -> Tensor:
        """Gradients `[n, channels, H, W]` to `[n, channels, orientations, cells, cells]`."""
        wanted = self.wanted
        magnitude = torch.sqrt(down * down + across * across)
        # To the upper half plane; the orientation is then that of the last bin edge passed, which
        # a product of whole numbers decides without an arc tangent.
        sign = torch.where((down < 0) | ((down == 0) & (across < 0)), -1.0, 1.0)
        down, across = down * sign, across * sign
        position = torch.zeros_like(down)
        for edge in range(1, wanted.orientations):
            angle = math.pi * edge / wanted.orientations
            passed = down * math.cos(angle) - across * math.sin(angle) >= 0
            position = position + passed.to(torch.float32)
        return torch.stack(
            [
                F.avg_pool2d(magnitude * (position == number).to(torch.float32), wanted.cell)
                for number in range(wanted.orientations)
            ],
            dim=2,
        )

    def _blocks(self, cells: Tensor) -> Tensor:
        """Histograms to normalised blocks `[n, channels, row, column, cells, orientations]`."""
        size, count = self.wanted.block, self.blocks
        shifted = [
            cells[..., row : row + count, column : column + count]
            for row in range(size)
            for column in range(size)
        ]
        blocks = torch.stack(shifted, dim=2).permute(0, 1, 4, 5, 2, 3)
        return _normalised(_normalised(blocks).clamp(max=_HYS))


def _strongest(down: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the colour in which it is largest, the first of equals; one channel."""
    squared = down * down + across * across
    most, rows, columns = squared[:, :1], down[:, :1], across[:, :1]
    for channel in range(1, 3):
        here = slice(channel, channel + 1)
        larger = squared[:, here] > most
        most = torch.where(larger, squared[:, here], most)
        rows = torch.where(larger, down[:, here], rows)
        columns = torch.where(larger, across[:, here], columns)
    return rows, columns


def _normalised(blocks: Tensor) -> Tensor:
    # In units of epsilon, since the exporter takes the addition of its square for one of nothing.
    scaled = blocks / _EPSILON
    return scaled / torch.sqrt((scaled * scaled).sum((4, 5), keepdim=True) + 1)
