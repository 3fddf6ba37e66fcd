"""Cutting pictures to what a detector finds, and the detector itself."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from imgcls import images
from imgcls.data import Labelling, open_dataset
from imgcls.errors import BadArgument, BadDataset, BadRecipe, WeightsUnavailable
from training.crop import crop, main
from training.detector import Box, Pixels, load_detector, widened

SMALL = "ssdlite320_mobilenet_v3_large"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A white square at a place of its own in each picture but one."""
    root = tmp_path / "photos"
    for number in range(12):
        pixels = np.full((40, 60, 3), 20, np.uint8)
        if number != 5:
            pixels[number : number + 10, 2 * number : 2 * number + 20] = 255
        extension = ("jpg", "png", "webp")[number % 3]
        (root / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(
            root / "ab"[number % 2] / f"x_{number}_{number / 8}.{extension}"
        )
    (root / "a" / "y_1_1.jpg").write_bytes(b"no image")
    return root


def bright(pixels: Pixels) -> Box | None:
    """A detector of white squares."""
    rows, columns = np.nonzero(pixels.min(axis=2) > 128)
    if not len(rows):
        return None
    return (
        int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1,
    )  # fmt: skip


def test_the_new_archive_has_the_finds_under_the_same_names(photos: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    counts = crop(
        photos,
        tmp_path / "cut.zip",
        bright,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (counts.cut, counts.without, counts.unreadable) == (11, 1, 1)
    assert seen[-1] == (13, 13)
    with zipfile.ZipFile(tmp_path / "cut.zip") as archive:
        for name in archive.namelist():
            found = images.decode(archive.read(name))
            assert found.shape == (10, 20, 3)
            assert found.min() > 200
    labelling = Labelling(pattern="{id}_{n}_{rate}", target="rate")
    with open_dataset(tmp_path / "cut.zip", labelling=labelling) as dataset:
        assert len(dataset) == 11
        assert sorted(dataset.targets(np.arange(11)).tolist()) == [
            n / 8 for n in range(12) if n != 5
        ]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".crop")] == []


def test_a_source_without_finds_and_a_target_that_exists_are_refused(
    photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadDataset, match="Nothing was found in any of the 13 images"):
        crop(photos, tmp_path / "cut.zip", lambda pixels: None)
    assert not (tmp_path / "cut.zip").exists()
    (tmp_path / "cut.zip").write_bytes(b"mine")
    with pytest.raises(BadDataset, match="exists already"):
        crop(photos, tmp_path / "cut.zip", bright)
    assert (tmp_path / "cut.zip").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("box", "margin", "wanted"),
    [
        ([10, 10, 20, 30], 0.0, (10, 10, 20, 30)),
        ([10, 10, 20, 30], 0.1, (9, 8, 21, 32)),
        ([0, 0, 60, 40], 0.5, (0, 0, 60, 40)),
        ([59.9, 39.9, 60, 40], 0.0, (59, 39, 60, 40)),
        ([60, 40, 60, 40], 0.0, (59, 39, 60, 40)),
    ],
)
def test_boxes_grow_by_their_margin_within_the_picture(
    box: list[float], margin: float, wanted: Box
) -> None:
    assert widened(box, (40, 60), margin) == wanted


def test_a_detector_of_torchvision_from_a_file_of_weights(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = torchvision.models.get_model(SMALL, weights=None, weights_backbone=None)
    state = network.state_dict()
    for key, value in state.items():  # nothing is learnt here, so every place is said to hold
        if "classification_head" in key and key.split(".")[4:] == ["1", "bias"]:
            value.view(-1, 91)[:, 1] = 5.0  # a person, with about 0.6
    torch.save(state, tmp_path / "w.pth")
    detector = load_detector(SMALL, str(tmp_path / "w.pth"), "person")
    assert detector.category == 1
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    box = detector.find(pixels, least=0.3, margin=0.0)
    assert box is not None
    left, top, right, bottom = box
    assert 0 <= left < right <= 70
    assert 0 <= top < bottom <= 50
    assert detector.find(pixels, least=0.99, margin=0.0) is None
    for path in list(photos.rglob("x_*"))[2:]:
        path.unlink()
    arguments = [str(photos), str(tmp_path / "cut.zip"), "--detector", SMALL]
    assert main([*arguments, "--weights", str(tmp_path / "w.pth"), "--score", "0.3"]) == 0
    assert "cut.zip: 2 images; left out 0 without a person and 1" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["code"] == "bad_dataset"
    assert main(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["", str(tmp_path / "other.zip")]) == 1
    assert "The path is empty" in capsys.readouterr().err
    arguments[1] = "/sys/cut.zip"  # where nobody can write
    assert main([*arguments, "--weights", str(tmp_path / "w.pth"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["code"] == "storage_unavailable"


def test_what_is_no_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="no detector 'resnet18'; there are: fasterrcnn"):
        load_detector("resnet18", "coco", "person")
    with pytest.raises(BadArgument, match="knows no 'unicorn'; it knows: person"):
        load_detector(SMALL, "coco", "unicorn")
    with pytest.raises(WeightsUnavailable, match="no weights file"):
        load_detector(SMALL, str(tmp_path / "none.pth"), "person")
    torch.save({"x": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises((BadArgument, BadRecipe), match="do not fit"):
        load_detector(SMALL, str(tmp_path / "w.pth"), "person")
