"""Detector: where in a picture something is, by a detection network of torchvision.

Used before training, to make a dataset of what counts in the pictures; serving never needs one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from torch import nn

from imgcls.errors import BadArgument, WeightsUnavailable
from training.backbones import read_state_dict
from training.fitted import device

DEFAULT = "fasterrcnn_mobilenet_v3_large_fpn"
PRETRAINED = "coco"
Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; the last two are outside."""


@dataclass(frozen=True, slots=True)
class Detector:
    network: nn.Module
    category: int
    """What it looks for: a class of COCO."""

    @torch.inference_mode()
    def find(self, pixels: Pixels, *, least: float, margin: float) -> Box | None:
        """The box of the surest find in `uint8 [H, W, 3]`, None where none reaches `least`.

        It is widened by `margin` of its sides on each side, as far as the picture goes.
        """
        # A copy: decoders hand out arrays that torch may not share.
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255
        found: dict[str, Any] = self.network([image.to(device())])[0]
        wanted = (found["labels"] == self.category) & (found["scores"] >= least)
        if not bool(wanted.any()):
            return None
        surest = int(torch.where(wanted, found["scores"], -1).argmax())
        return widened(found["boxes"][surest].tolist(), pixels.shape[:2], margin)


def widened(box: list[float], shape: tuple[int, ...], margin: float) -> Box:
    """`box` (left, top, right, bottom) with its margin, within `shape` (height, width).

    At least a pixel wide and high.
    """
    height, width = shape
    left, top, right, bottom = box
    aside, above = margin * (right - left), margin * (bottom - top)
    x = min(max(0, int(left - aside)), width - 1)
    y = min(max(0, int(top - above)), height - 1)
    return (
        x,
        y,
        min(width, max(x + 1, round(right + aside))),
        min(height, max(y + 1, round(bottom + above))),
    )


def load_detector(name: str, weights: str, thing: str) -> Detector:
    """A detector of torchvision by name. `weights` is `coco` or the path of its state dict.

    `thing` is a category of COCO (`person`, `cat`, ...). Raises `BadArgument` for a name that
    is not there, `WeightsUnavailable` where the weights cannot be had.
    """
    names = torchvision.models.list_models(torchvision.models.detection)
    known = [other for other in names if "keypoint" not in other]
    if name not in known:
        raise BadArgument(f"There is no detector {name[:80]!r}; there are: {', '.join(known)}.")
    pretrained: Any = torchvision.models.get_model_weights(name)
    chosen = pretrained.DEFAULT
    categories: list[str] = chosen.meta["categories"]
    if thing not in categories[1:]:
        there = ", ".join(c for c in categories[1:] if c != "N/A")
        raise BadArgument(f"The detector knows no {thing[:40]!r}; it knows: {there}.")
    if weights == PRETRAINED:
        try:
            state = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as err:
            raise WeightsUnavailable(
                f"The COCO weights of {name} could not be fetched ({' '.join(str(err).split())}); "
                f"download {chosen.url} elsewhere and give its path as --weights."
            ) from err
    else:
        state = read_state_dict(Path(weights))
    network = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=len(categories)
    )
    try:
        network.load_state_dict(state)
    except RuntimeError as err:
        raise BadArgument(
            f"The weights {weights} do not fit {name}: {' '.join(str(err).split())[:300]}"
        ) from err
    return Detector(network.to(device()).eval(), categories.index(thing))
