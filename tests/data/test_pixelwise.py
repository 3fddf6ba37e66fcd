"""Pixelwise: figures equal those of plain numpy, for every shape and however images are stacked."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from imgcls.data.pixelwise import Scratch, statistics

SHAPES = [
    (5, 32, 32), (3, 1, 1), (3, 5, 4), (2, 8, 9), (4, 7, 70), (1, 300, 375), (2, 97, 95),
    (1, 3, 2000), (1, 2000, 3), (3, 96, 96),
]  # fmt: skip


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_all_pixels(shape):
    stack = noise(*shape)
    found = statistics(stack)
    assert np.array_equal(found.sums, stack.sum(axis=(1, 2), dtype=np.int64))
    assert np.array_equal(found.squares, np.square(stack, dtype=np.int64).sum(axis=(1, 2)))


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_is_the_variance_of_the_laplacian(shape):
    stack = noise(*shape)
    if min(shape[1:]) < 3:
        assert (statistics(stack).blur == 0).all()
        return
    grey = stack @ np.array([77, 150, 29]) / 256
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    laplacian = around - 4 * grey[:, 1:-1, 1:-1]
    if shape[1] > 192:  # of tall pictures 64 rows are looked at
        laplacian = laplacian[:, np.linspace(1, shape[1] - 2, 64).astype(int) - 1]
    expected = laplacian.reshape(shape[0], -1).var(axis=1)
    np.testing.assert_allclose(statistics(stack).blur, expected, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_picture_measures_the_same_alone_and_among_others(shape):
    stack = noise(*shape)
    together = statistics(stack)
    for at in range(len(stack)):
        alone = statistics(stack[at : at + 1])
        assert all(
            np.array_equal(one[0], all_[at]) for one, all_ in zip(alone, together, strict=True)
        )


def test_scratch_memory_of_other_stacks_changes_nothing():
    scratch = Scratch()
    for shape in [*SHAPES, *reversed(SHAPES)]:
        stack = noise(*shape)
        found, expected = statistics(stack, scratch), statistics(stack)
        statistics(255 - stack, scratch)  # what was found does not lie in it
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_blurred_picture_is_less_sharp_and_looks_alike():
    picture = Image.fromarray(noise(16, 16)).resize((160, 120), Image.Resampling.BICUBIC)
    soft = picture.filter(ImageFilter.GaussianBlur(3))
    found = statistics(np.stack([np.asarray(picture), np.asarray(soft)]))
    assert found.blur[1] < found.blur[0] / 3
    assert int(found.phash[0] ^ found.phash[1]).bit_count() < 10


def test_cells_are_means_of_grey():
    stack = noise(3, 40, 45)
    grey = (stack @ np.array([299, 587, 114]) / 1000).reshape(3, 8, 5, 9, 5).mean(axis=(2, 4))
    assert (np.abs(statistics(stack).cells - grey.reshape(3, 72)) <= 0.5).all()
    assert (statistics(np.full((1, 3, 2, 3), 200, np.uint8)).cells == 200).all()
