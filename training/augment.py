"""Random changes to training images: torchvision's v2 transforms, applied to small groups.

One transform call draws one set of parameters for all images it is given, and costs about as
much for eight 32 x 32 images as for one. So a batch is cut into groups of `GROUP` images that
share a draw; batches are shuffled every epoch, which makes the groups new ones each time. Flips
cost nothing and are drawn per image.
"""

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from imgcls.recipes import Augment
from training.loader import Pixels

GROUP = 4
"""Images that share one draw of crop, rotation and perspective."""


TINY_SIDE = 16
"""Images below this side (in pixels) are taken for symbols, which no flip leaves as they are."""
_LOOKED_AT = 500
"""Images looked at to tell grey from colour."""


def default_for(pixels: Pixels) -> Augment:
    """What `augment: null` means for training images `uint8 [n, H, W, 3]`.

    Grey images and images under 16 px are digits, letters, scans more often than not: they are
    shifted and turned a little, and never flipped. Others are shifted, flipped left to right,
    and mixed in half of the batches.
    """
    sample = pixels[:: max(1, len(pixels) // _LOOKED_AT)]
    grey = bool((sample == sample[..., :1]).all())
    if grey or min(pixels.shape[1:3]) < TINY_SIDE:
        return Augment(crop=0.1, rotation=8, horizontal_flip=False)
    return Augment(crop=0.125, horizontal_flip=True, cutmix=0.5)


def does_anything(config: Augment) -> bool:
    """Whether any change is switched on."""
    return config != Augment(horizontal_flip=False)


class Augmenter:
    """Callable on images `uint8 [n, H, W, 3]` and targets `int64 [n]` of a batch.

    Gives images of the same shape and type, and the targets: as they were, or where the batch was
    mixed as shares `float32 [n, classes]`.

    Draws come from torch's global generator: seed that and the changes repeat.
    """

    def __init__(self, config: Augment, size: tuple[int, int], classes: int) -> None:
        bilinear = InterpolationMode.BILINEAR
        steps: list[v2.Transform] = []
        if config.rotation > 0:
            steps.append(v2.RandomRotation([-config.rotation, config.rotation], bilinear))
        if config.perspective > 0:
            steps.append(v2.RandomPerspective(config.perspective, p=0.5, interpolation=bilinear))
        if config.crop > 0:
            # A shift keeps the scale and sharpness that images have when the model is used; a
            # random crop resized to the same size does not, and cost 3 points on 32 px photos.
            rows, columns = (max(1, round(config.crop * side)) for side in size)
            steps.append(v2.RandomCrop(size, [columns, rows], padding_mode="reflect"))
        self._geometry = v2.Compose(steps) if steps else None
        self._flip = config.horizontal_flip
        self._cutmix = v2.CutMix(num_classes=classes) if config.cutmix > 0 else None
        self._cutmix_share = config.cutmix

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if self._geometry is not None:
            groups = torch.split(images.permute(0, 3, 1, 2), GROUP)
            images = torch.cat([self._geometry(group) for group in groups]).permute(0, 2, 3, 1)
        if self._flip:
            flipped = torch.rand(len(images), device=images.device) < 0.5
            images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(2), images)
        if self._cutmix is not None and len(images) > 1 and torch.rand(()) < self._cutmix_share:
            mixed, targets = self._cutmix(images.permute(0, 3, 1, 2), targets)
            images = mixed.permute(0, 2, 3, 1)
        return images, targets
