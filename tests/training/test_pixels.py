"""The cache of decoded images: decoded once, read where they lie, bounded on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from imgcls import images
from imgcls.card import Preprocessing
from imgcls.data import Dataset, open_dataset
from imgcls.errors import StorageUnavailable
from imgcls.settings import get_settings
from training.pixels import Examples, decoded

SIZE = Preprocessing(height=12, width=10)


def never(*args: object, **kwargs: object) -> None:
    raise AssertionError("decoded again")


def test_a_dataset_is_decoded_once_for_each_size(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = decoded(dataset, SIZE)
    assert first.shape == (len(dataset), 12, 10, 3)
    for row in range(0, len(dataset), 7):
        assert np.array_equal(first[row], images.load(dataset.read(row), SIZE))
    monkeypatch.setattr("training.pixels.iter_pixels", never)
    assert np.array_equal(decoded(dataset, SIZE), first)
    assert isinstance(first, np.memmap)
    with pytest.raises(AssertionError, match="decoded again"):
        decoded(dataset, Preprocessing(height=12, width=11))


def test_an_unreadable_image_leaves_its_row_black_and_the_others_in_place(
    shapes: Callable[..., Path], tmp_path: Path
) -> None:
    root = tmp_path / "copied"
    for label in ("blue", "red"):
        (root / label).mkdir(parents=True)
        for path in sorted((shapes() / label).iterdir())[:5]:
            (root / label / path.name).write_bytes(path.read_bytes())
    (root / "blue" / "002.png").write_bytes(b"no image")
    dataset = open_dataset(root)
    pixels = decoded(dataset, SIZE)
    names = [dataset.name(row) for row in range(len(dataset))]
    broken = names.index(next(name for name in names if name.endswith("blue/002.png")))
    assert not pixels[broken].any()
    rest = [row for row in range(len(dataset)) if row != broken]
    assert len(rest) == 9
    for row in rest:
        assert np.array_equal(pixels[row], images.load(dataset.read(row), SIZE))


def test_a_file_that_was_cut_short_is_made_again(dataset: Dataset) -> None:
    first = np.array(decoded(dataset, SIZE))
    (path,) = (get_settings().home / "cache" / "pixels").glob("*.u8")
    path.write_bytes(path.read_bytes()[:-1])
    assert np.array_equal(decoded(dataset, SIZE), first)


def test_what_was_used_longest_ago_makes_room(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = 64
    monkeypatch.setenv("IMGCLS_PIXEL_CACHE_MB", "3")  # room for two of these
    get_settings.cache_clear()
    assert len(dataset) * side * side * 3 * 2 < 3 << 20 < len(dataset) * side * side * 3 * 3
    folder = get_settings().home / "cache" / "pixels"
    for number in range(3):
        decoded(dataset, Preprocessing(height=side, width=side + number))
        if number == 1:  # the older one is used again
            kept = decoded(dataset, Preprocessing(height=side, width=side))
    assert len(list(folder.glob("*.u8"))) == 2
    sizes = {path.stat().st_size for path in folder.glob("*.u8")}
    assert kept.nbytes in sizes


def test_a_full_disk_is_a_refusal_that_says_where_room_is_needed(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = get_settings().home / "cache"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("not a folder")
    with pytest.raises(StorageUnavailable, match="image_size"):
        decoded(dataset, SIZE)


def test_batches_hold_the_images_and_targets_of_their_positions() -> None:
    pixels = np.arange(20, dtype=np.uint8).repeat(3).reshape(20, 1, 1, 3)
    examples = Examples(pixels, np.arange(1, 20, 2), np.arange(10))
    images, targets, counts = examples.batch(np.array([7, 2]))
    assert images[:, 0, 0, 0].tolist() == [5, 15]
    assert targets.tolist() == [2, 7]
    assert counts is None
    assert torch.cat([batch for batch, *_ in examples.batches(4)])[:, 0, 0, 0].tolist() == list(
        range(1, 20, 2)
    )
    assert len(examples.some(5)) == 5
    assert len(examples.some(100)) == 10
