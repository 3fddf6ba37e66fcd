"""Backbones: weights from files, refusals that say what to do, features without a classifier."""

import os
import time
from pathlib import Path

import pytest
import torch
import torchvision

from imgcls.errors import BadRecipe, WeightsUnavailable
from training.backbones import load_backbone


@pytest.fixture(scope="module")
def resnet18_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return torchvision.models.resnet18(num_classes=7).state_dict()


def test_a_state_dict_with_another_head_gives_its_own_features(
    resnet18_state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "resnet18.pth"
    wrapped = {"state_dict": {f"module.{k}": v for k, v in resnet18_state.items()}}
    torch.save(wrapped, path)
    backbone = load_backbone("resnet18", str(path), image_size=64)
    source = torchvision.models.resnet18(num_classes=7)
    source.load_state_dict(resnet18_state)
    source.fc = torch.nn.Identity()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(backbone.body(images), source.eval()(images), atol=1e-5)
    assert backbone.dim == 512


def test_safetensors_and_pth_of_the_same_weights_hash_the_same(
    resnet18_state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    torch.save({"model": resnet18_state}, tmp_path / "a.pt")
    save_file(resnet18_state, tmp_path / "a.safetensors")
    first = load_backbone("resnet18", str(tmp_path / "a.pt"), image_size=32)
    second = load_backbone("resnet18", str(tmp_path / "a.safetensors"), image_size=32)
    other = load_backbone("resnet18", "none", image_size=32)
    assert first.weights_hash == second.weights_hash != other.weights_hash


def test_a_state_dict_that_does_not_fit_is_refused_by_the_names_of_its_keys(
    resnet18_state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "other.pth"
    broken = {k: v for k, v in resnet18_state.items() if k != "conv1.weight"}
    torch.save(broken | {"surplus.weight": torch.zeros(1)}, path)
    with pytest.raises(BadRecipe, match=r"missing: conv1\.weight; unexpected: surplus\.weight"):
        load_backbone("resnet18", str(path), image_size=32)
    torch.save(resnet18_state | {"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(BadRecipe, match=r"misshapen: conv1\.weight \(1,\)"):
        load_backbone("resnet18", str(path), image_size=32)
    path.write_bytes(b"not a state dict")
    with pytest.raises(BadRecipe, match="cannot be read"):
        load_backbone("resnet18", str(path), image_size=32)


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.rand(1)
    first = load_backbone("mobilenet_v3_small", "none", image_size=32, seed=1)
    torch.rand(1)
    assert load_backbone("mobilenet_v3_small", "none", image_size=32, seed=1).weights_hash == (
        first.weights_hash
    )
    assert load_backbone("mobilenet_v3_small", "none", image_size=32, seed=2).weights_hash != (
        first.weights_hash
    )


def test_a_missing_weights_file_names_the_two_ways_on(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match=r"--set features\.weights=/.*weights=none"):
        load_backbone("resnet18", str(tmp_path / "nowhere.pth"), image_size=32)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_imagenet_weights_that_cannot_be_fetched_name_the_two_ways_on_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    started = time.monotonic()
    with pytest.raises(WeightsUnavailable, match=r"--set features\.weights=/.*weights=none"):
        load_backbone(name, "imagenet", image_size=32)
    assert time.monotonic() - started < 30


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_fetched_weights_run_no_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """torchvision takes what lies in its cache for what it has fetched."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    cached = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), cached)
    assert load_backbone("resnet18", "imagenet", image_size=32).dim == 512
    torch.save(Harmful(tmp_path / "harm"), cached)
    with pytest.raises(WeightsUnavailable):
        load_backbone("resnet18", "imagenet", image_size=32)
    assert not (tmp_path / "harm").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_an_unknown_backbone_and_an_impossible_size_are_bad_recipes() -> None:
    with pytest.raises(BadRecipe, match="no backbone 'resnet17'"):
        load_backbone("resnet17", "none", image_size=32)
    with pytest.raises(BadRecipe, match="does not take images of 8 x 8"):
        load_backbone("alexnet", "none", image_size=8)


@pytest.mark.parametrize(
    ("name", "dim"), [("squeezenet1_1", 512), ("shufflenet_v2_x0_5", 1024), ("vit_b_16", 768)]
)
def test_the_classifier_is_cut_off_whatever_it_is_called(name: str, dim: int) -> None:
    assert load_backbone(name, "none", image_size=32).dim == dim
