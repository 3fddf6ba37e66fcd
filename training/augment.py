"""Random changes to training images: torchvision's v2 transforms, applied to small groups.

One transform call draws one set of parameters for all images it is given, and costs about as
much for eight 32 x 32 images as for one. So a batch is cut into groups of `GROUP` images that
share a draw; batches are shuffled every epoch, which makes the groups new ones each time. Flips
cost nothing and are drawn per image.
"""

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from imgcls.errors import BadRecipe
from imgcls.recipes.types import Augment
from training.loader import Pixels

GROUP = 4
"""Images that share one draw of crop, rotation, perspective and contrast."""
TINY_SIDE = 16
"""Images below this side (in pixels) are taken for symbols, which no flip leaves as they are."""
PHOTOS = Augment(crop=0.125, rotation=0, horizontal_flip=True, perspective=0, cutmix=0.5)
SYMBOLS = Augment(crop=0.1, rotation=8, horizontal_flip=False, perspective=0, cutmix=0)
_MIXUP_ALPHA = 0.2
"""Of the beta distribution that the shares of a blend are drawn from; the paper's for ImageNet."""


def resolve(config: Augment, pixels: Pixels, *, regression: bool = False) -> Augment:
    """`config` with what it leaves null chosen by training images `uint8 [n, H, W, 3]`.

    Raises `BadRecipe` where a regression's images were to be mixed.
    """
    grey = bool((pixels == pixels[..., :1]).all())
    chosen = SYMBOLS if grey or min(pixels.shape[1:3]) < TINY_SIDE else PHOTOS
    if regression:
        if config.mixup or config.cutmix:
            raise BadRecipe(
                "The images of a regression cannot be mixed: leave augment.mixup and "
                "augment.cutmix out, or set them to 0."
            )
        chosen = chosen.model_copy(update={"rotation": 0, "cutmix": 0})
    if config.mixup and config.cutmix is None:
        chosen = chosen.model_copy(update={"cutmix": min(chosen.cutmix or 0, 1 - config.mixup)})
    return chosen.model_copy(update=config.model_dump(exclude_none=True))


class Augmenter:
    """Callable on images `uint8 [n, H, W, 3]` and targets `[n]` of a batch.

    Gives images of the same shape and type, and the targets: as they were, or where the batch was
    mixed as shares `float32 [n, classes]`. What the config leaves null is off.

    Draws come from torch's global generator: seed that and the changes repeat.
    """

    def __init__(self, config: Augment, size: tuple[int, int], classes: int) -> None:
        bilinear = InterpolationMode.BILINEAR
        steps: list[v2.Transform] = []
        if config.rotation:
            steps.append(v2.RandomRotation([-config.rotation, config.rotation], bilinear))
        if config.perspective:
            steps.append(v2.RandomPerspective(config.perspective, p=0.5, interpolation=bilinear))
        if config.crop:
            # A shift keeps the scale and sharpness that images have when the model is used; a
            # random crop resized to the same size does not, and cost 3 points on 32 px photos.
            rows, columns = (max(1, round(config.crop * side)) for side in size)
            steps.append(v2.RandomCrop(size, [columns, rows], padding_mode="reflect"))
        if config.contrast:
            steps.append(v2.ColorJitter(contrast=config.contrast))
        self._shared = v2.Compose(steps) if steps else None
        self._flips = [
            dim for dim, on in ((2, config.horizontal_flip), (1, config.vertical_flip)) if on
        ]
        self._cutmix = v2.CutMix(num_classes=classes) if config.cutmix else None
        self._mixup = v2.MixUp(alpha=_MIXUP_ALPHA, num_classes=classes) if config.mixup else None
        self._cutmix_share, self._mixup_share = config.cutmix or 0.0, config.mixup or 0.0

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if self._shared is not None:
            groups = torch.split(images.permute(0, 3, 1, 2), GROUP)
            images = torch.cat([self._shared(group) for group in groups]).permute(0, 2, 3, 1)
        for dim in self._flips:
            flipped = torch.rand(len(images), device=images.device) < 0.5
            images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(dim), images)
        if len(images) > 1 and (self._cutmix or self._mixup):
            images, targets = self._mixed(images, targets)
        return images, targets

    def _mixed(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        drawn = float(torch.rand(()))
        if self._cutmix and drawn < self._cutmix_share:
            mixed, targets = self._cutmix(images.permute(0, 3, 1, 2), targets)
        elif self._mixup and drawn < self._cutmix_share + self._mixup_share:
            mixed, targets = self._mixup(images.permute(0, 3, 1, 2).float(), targets)
            mixed = mixed.round().to(images.dtype)
        else:
            return images, targets
        return mixed.permute(0, 2, 3, 1), targets
