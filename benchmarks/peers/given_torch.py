"""What the torch peers share: torchvision's network with the given weights, and its transforms."""

import os

import torch
from torch import Tensor, nn
from torchvision import models, transforms

SIDE = int(os.environ["PEER_SIDE"])

preprocess = transforms.Compose(
    [
        transforms.Resize((SIDE, SIDE)),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)
"""A PIL image to `float32 [3, SIDE, SIDE]`."""


def network() -> nn.Module:
    weights: dict[str, Tensor] = torch.load(os.environ["PEER_WEIGHTS"], weights_only=True)
    *_, bias = weights.values()
    model: nn.Module = models.get_model(os.environ["PEER_NETWORK"], num_classes=len(bias))
    model.load_state_dict(weights)
    return model.eval()
