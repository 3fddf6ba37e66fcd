"""Pretrained networks as frozen feature extractors: torchvision's by name, then timm's.

A backbone is the network without its classifier: pooled features come out. Its weights are the
published ImageNet ones, a random initialisation, or a state dict from a file; files are read
without unpickling code.
"""

import contextlib
import hashlib
import os
import pickle
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from imgcls.errors import BadRecipe, WeightsUnavailable
from training.networks import IMAGENET_MEAN, IMAGENET_STD

_TIMEOUT = 10.0
"""Seconds to wait for a server that offers weights."""
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_HEADS = ("fc", "classifier", "heads", "head")
"""Where torchvision's classification networks keep their classifier."""
_SIDE_HEADS = ("aux1.", "aux2.", "AuxLogits.")
"""Keys of classifiers that GoogLeNet and Inception have half way, for training alone."""
_NAMED = 3
"""Keys that an error names."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """`body` maps normalised `float32 [n, 3, H, W]` to features `float32 [n, dim]`."""

    name: str
    library: str
    body: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dim: int
    weights_hash: str
    """SHA-256 over the names and values of the body's parameters and buffers."""


def load_backbone(
    name: str, weights: str, *, image_size: int, seed: int = 0, part: str = "features"
) -> Backbone:
    """Build the network `name`, without its classifier, frozen and in eval mode.

    `weights` is `imagenet`, `none` (random, from `seed`) or the path of a state dict; `part` is the
    recipe's that names it, for messages. Raises `BadRecipe` for an unknown name, an unfit state
    dict or an image size that the network does not take, and `WeightsUnavailable` where the
    weights are not to be had.
    """
    build = _torchvision if name in torchvision.models.list_models(torchvision.models) else _timm
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            library, body, prefixes, mean, std = build(name, weights == "imagenet", image_size)
        except _NotFetched as err:
            raise _unavailable(name, part, err) from err
    if weights not in ("imagenet", "none"):
        state = read_state_dict(Path(weights), part=part)
        _load_into(body, state, prefixes, f"{Path(weights).name}", name)
    body.requires_grad_(False).eval()
    try:
        with torch.inference_mode():
            shape = body(torch.zeros(2, 3, image_size, image_size)).shape
    except (RuntimeError, AssertionError, ValueError) as err:
        raise BadRecipe(
            f"The backbone {name} does not take images of {image_size} x {image_size}: "
            f"{' '.join(str(err).split())[:200]}"
        ) from err
    if len(shape) != 2:
        body, shape = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval(), shape[:2]
    return Backbone(name, library, body, mean, std, int(shape[1]), _hash(body))


Built = tuple[str, nn.Module, tuple[str, ...], tuple[float, ...], tuple[float, ...]]
"""Library, body, the prefixes of its classifier's keys, mean, standard deviation."""


def _torchvision(name: str, pretrained: bool, image_size: int) -> Built:
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    chosen = torchvision.models.get_model_weights(name).DEFAULT if pretrained else None
    options: dict[str, Any] = {}
    if name.startswith("vit_") and not pretrained:
        options["image_size"] = image_size
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": not pretrained, "aux_logits": False}
    try:
        with _impatient(), _tensors_only():
            model = torchvision.models.get_model(name, weights=chosen, **options)
    except (OSError, RuntimeError, pickle.UnpicklingError) as err:
        if not pretrained:
            raise
        raise _NotFetched(err) from err
    except AssertionError as err:
        raise BadRecipe(f"The backbone {name} does not take {image_size} px images.") from err
    if chosen is not None:
        preset = chosen.transforms()
        mean, std = tuple(preset.mean), tuple(preset.std)
    return "torchvision", model, (_cut(model), *_SIDE_HEADS), mean, std


def _cut(model: nn.Module) -> str:
    """Take the classifier off, in place; returns the prefix of the keys it had."""
    top = next(head for head in _HEADS if hasattr(model, head))
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    last = next((n for n in reversed(linear) if n.split(".")[0] == top), None)
    if last is None:  # a convolution classifies: keep what it looks at
        setattr(model, top, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        return f"{top}."
    parent, _, leaf = last.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.Identity())
    return f"{last}."


def _timm(name: str, pretrained: bool, image_size: int) -> Built:
    import timm

    if not timm.is_model(name):
        raise BadRecipe(
            f"There is no backbone {name!r}: give the name of a torchvision classification model "
            "(resnet18, efficientnet_b0, ...) or of a timm model (resnetv2_50, ...)."
        )
    try:
        # Transformers are built for one size of images.
        fixed = getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False)
        options: dict[str, Any] = {"img_size": image_size} if fixed else {}
        with _hub() if pretrained else contextlib.nullcontext():
            model = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except Exception as err:  # hubs raise errors of many libraries
        if not pretrained:
            raise BadRecipe(f"timm cannot build {name!r}: {err}") from err
        raise _NotFetched(err) from err
    from timm.data.config import resolve_model_data_config

    config: dict[str, Any] = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    classifier = getattr(model, "default_cfg", {}).get("classifier") or "head"
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    prefixes = tuple(f"{n}." for n in names)
    return "timm", model, prefixes, tuple(config["mean"]), tuple(config["std"])


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _tensors_only() -> Iterator[None]:
    """Let torch read tensors and no other objects, which could run code.

    torchvision asks for all objects, and reads a file that lies in its cache without a check.
    """
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _hub() -> Iterator[None]:
    """Where the hub cannot be reached, let its client look into its cache only.

    By itself the client asks again and again, for most of a minute.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        with contextlib.suppress(urllib.error.HTTPError):  # any answer means that it is there
            request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
            urllib.request.urlopen(request, timeout=_TIMEOUT).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


class _NotFetched(Exception):
    """Why pretrained weights are not to be had."""


def _unavailable(name: str, part: str, err: Exception) -> WeightsUnavailable:
    reason = " ".join(str(err).split())[:160] or type(err.__cause__).__name__
    return WeightsUnavailable(
        f"The ImageNet weights of {name} could not be fetched ({reason}). Either give the path of "
        f"a state dict (--set {part}.weights=/path/{name}.pth), or train without pretrained "
        f"weights: --set {part}.weights=none, or the recipe cnn."
    )


def read_state_dict(path: Path, *, part: str = "features") -> dict[str, Tensor]:
    """A state dict from `.safetensors`, or from `.pt`/`.pth` with `weights_only`.

    Wrappers such as `{"state_dict": ...}` and the prefix `module.` are taken off. Raises
    `WeightsUnavailable` where there is no such file, `BadRecipe` where it is no state dict.
    """
    if not path.is_file():
        raise WeightsUnavailable(
            f"There is no weights file {str(path)!r}. Give the path of a state dict "
            f"(--set {part}.weights=/path/resnet18.pth), or train without pretrained weights: "
            f"--set {part}.weights=none, or the recipe cnn."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # the readers raise errors of many kinds for damaged files
        reason = " ".join(str(err).split())[:200]
        raise BadRecipe(f"{path.name} cannot be read as a state dict of tensors: {reason}") from err
    for key in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise BadRecipe(f"{path.name} holds no state dict: a mapping of names to tensors.")
    return {str(k).removeprefix("module."): v for k, v in loaded.items()}


def _load_into(
    body: nn.Module, state: dict[str, Tensor], prefixes: tuple[str, ...], file: str, name: str
) -> None:
    """Fill `body`, leaving out the classifier's keys whatever their shape. Raises `BadRecipe`."""
    own = body.state_dict()
    state = {k: v for k, v in state.items() if k in own or not k.startswith(prefixes)}
    # Counters that only training reads; old files lack them.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    misshapen = [
        f"{k} {tuple(v.shape)} instead of {tuple(own[k].shape)}"
        for k, v in state.items()
        if k in own and v.shape != own[k].shape
    ]
    faults = [
        f"{what}: {', '.join(keys[:_NAMED])}"
        + (f" and {len(keys) - _NAMED} more" * (len(keys) > _NAMED))
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if keys
    ]
    if faults:
        raise BadRecipe(f"The weights in {file} do not fit {name}: {'; '.join(faults)}.")
    body.load_state_dict(state, strict=False)


def _hash(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
