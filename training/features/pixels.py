"""The pixels themselves as features, and grey pixels as Pillow computes them."""

import torch
from torch import Tensor, nn


class Pixels(nn.Module):
    """`uint8 [n, H, W, 3]` to `float32 [n, H * W * 3]`, 0 to 1."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).to(torch.float32) / 255


def luma(images: Tensor) -> Tensor:
    """`uint8 [n, H, W, 3]` to `float32 [n, 1, H, W]`, whole numbers from 0 to 255.

    Equal to `Image.convert("L")` in every pixel (ITU-R 601): no sum exceeds what float32 holds
    exactly, so gradients of grey images have no ties that rounding would decide.
    """
    red, green, blue = images.to(torch.float32).unbind(3)
    grey = torch.floor((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536)
    return grey.unsqueeze(1)
