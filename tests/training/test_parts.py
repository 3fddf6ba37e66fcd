"""The parts of training: loop, head, augmentation, figures."""

import numpy as np
import pytest
import torch

from imgcls.errors import BadRecipe, TrainingFailed
from imgcls.recipes import NetworkRecipe
from imgcls.recipes.types import Augment, EarlyStop, Optimizer
from training.augment import Augmenter, resolve
from training.evaluate import measure
from training.loop import fit
from training.networks import cnn
from training.objectives import Classification
from training.pixels import Examples

EVENLY = Classification(np.ones(2, np.float32))


def stripes(count: int = 64, *, mistaken: bool = False) -> Examples:
    """Dark and light images, classes 0 and 1, or the other way round."""
    noise = np.random.default_rng(0)
    targets = np.arange(count) % 2
    pixels = noise.integers(0, 60, (count, 8, 8, 3)) + 150 * targets[:, None, None, None]
    truths = (1 - targets if mistaken else targets).astype(np.int64)
    return Examples(pixels.astype(np.uint8), np.arange(count), truths)


def test_the_best_epoch_is_kept_and_patience_ends_the_run() -> None:
    mistaken = stripes(mistaken=True)  # validation gets worse as training gets better
    torch.manual_seed(0)
    network = cnn(8, 2, width=0.5, dense=8, dropout=0)
    recipe = NetworkRecipe(
        epochs=50,
        batch_size=16,
        optimizer=Optimizer(lr=0.01),
        early_stop=EarlyStop(patience=3),
    )
    fitted = fit(network, stripes(), mistaken, recipe, EVENLY)
    losses = [row["val_loss"] for row in fitted.history]
    assert len(losses) == int(np.argmin(losses)) + 1 + 3 < 50
    with torch.inference_mode():
        images, truths, _ = mistaken.batch(np.arange(64))
        loss = torch.nn.functional.cross_entropy(fitted.network.logits(images), truths).item()
    assert loss == pytest.approx(min(losses), abs=1e-5)
    assert not fitted.network.training


def test_a_loss_that_explodes_is_an_error_that_names_the_learning_rate() -> None:
    torch.manual_seed(0)
    network = cnn(8, 2, width=0.5, dense=8, dropout=0)
    with torch.no_grad():
        network.head.bias.fill_(float("nan"))
    recipe = NetworkRecipe(epochs=2, optimizer=Optimizer(lr=0.01))
    with pytest.raises(TrainingFailed, match=r"lr=0\.01"):
        fit(network, stripes(), stripes(), recipe, EVENLY)


def test_augmentation_keeps_shape_and_type_and_repeats_with_the_seed() -> None:
    images = torch.randint(0, 256, (21, 16, 16, 3), dtype=torch.uint8)
    change = Augmenter(Augment(crop=0.3, rotation=20, perspective=0.3), (16, 16), 2)
    torch.manual_seed(1)
    targets = torch.arange(21) % 2
    first, unchanged = change(images, targets)
    torch.manual_seed(1)
    assert torch.equal(change(images, targets)[0], first)
    assert torch.equal(unchanged, targets)
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    assert not torch.equal(change(images, targets)[0], first)


def test_grey_and_tiny_images_are_never_flipped_and_photos_are() -> None:
    noise = np.random.default_rng(0)
    colour = noise.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    grey = np.repeat(colour[..., :1], 3, axis=3)
    assert resolve(Augment(), colour).horizontal_flip
    assert not resolve(Augment(), grey).horizontal_flip
    assert not resolve(Augment(), colour[:, :8, :8]).horizontal_flip


def test_one_setting_of_the_augmentation_leaves_the_others_to_the_data() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    changed = resolve(Augment(rotation=15), colour)
    assert changed == resolve(Augment(), colour).model_copy(update={"rotation": 15})
    assert resolve(Augment(crop=0), colour).crop == 0


def test_figures_of_a_split_follow_from_its_probabilities() -> None:
    probabilities = np.array([[0.9, 0.1], [0.45, 0.55], [0.3, 0.7], [0.2, 0.8]], np.float32)
    targets = np.array([0, 0, 1, 1])
    plain = measure(["no", "yes"], targets, probabilities)
    assert plain.accuracy == 0.75
    assert plain.confusion_matrix == [[1, 1], [0, 2]]
    assert plain.log_loss == pytest.approx(-np.log([0.9, 0.45, 0.7, 0.8]).mean(), abs=1e-6)
    assert [c.support for c in plain.per_class] == [2, 2]
    strict = measure(["no", "yes"], targets, probabilities, threshold=0.6)
    assert strict.accuracy == 1.0
    assert strict.macro_f1 == 1.0
    at_threshold = measure(
        ["no", "yes"], targets, probabilities, threshold=float(probabilities[2, 1])
    )
    assert at_threshold.confusion_matrix[1] == [0, 2]


def test_cutmix_shares_the_label_out_by_area() -> None:
    dark, light = torch.zeros(8, 8, 8, 3), torch.full((8, 8, 8, 3), 255.0)
    images = torch.cat((dark, light)).to(torch.uint8)
    targets = torch.arange(16) // 8
    torch.manual_seed(0)
    change = Augmenter(Augment(horizontal_flip=False, cutmix=1.0), (8, 8), 2)
    mixed, shares = change(images, targets)
    assert mixed.shape == images.shape
    assert mixed.dtype == torch.uint8
    lightness = mixed.float().mean((1, 2, 3)) / 255
    assert torch.allclose(shares[:, 1], lightness, atol=1e-6)
    assert 0 < lightness[0] < 1 or 0 < lightness[8] < 1


def test_mixup_blends_images_and_labels_alike() -> None:
    dark, light = torch.zeros(8, 8, 8, 3), torch.full((8, 8, 8, 3), 255.0)
    images = torch.cat((dark, light)).to(torch.uint8)
    torch.manual_seed(0)
    change = Augmenter(Augment(horizontal_flip=False, mixup=1.0), (8, 8), 2)
    mixed, shares = change(images, torch.arange(16) // 8)
    assert mixed.dtype == torch.uint8
    lightness = mixed.float().mean((1, 2, 3)) / 255
    assert torch.allclose(shares[:, 1], lightness, atol=0.003)
    assert 0 < lightness[0] < 1 or 0 < lightness[8] < 1


def test_images_are_turned_upside_down_and_change_their_contrast() -> None:
    upper = torch.zeros(40, 8, 8, 3, dtype=torch.uint8)
    upper[:, :4] = 200
    torch.manual_seed(0)
    turned, _ = Augmenter(Augment(vertical_flip=True), (8, 8), 2)(upper, torch.zeros(40).long())
    assert 5 < int((turned[:, 0, 0, 0] == 0).sum()) < 35
    assert all(torch.equal(t, upper[0]) or torch.equal(t, upper[0].flip(0)) for t in turned)
    contrasted, _ = Augmenter(Augment(contrast=0.5), (8, 8), 2)(upper, torch.zeros(40).long())
    assert len(contrasted.amax((1, 2, 3)).unique()) > 3


def test_a_regression_is_neither_mixed_nor_turned() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    chosen = resolve(Augment(), colour, regression=True)
    assert not chosen.cutmix
    assert chosen.horizontal_flip
    assert not resolve(Augment(), colour[:, :8, :8], regression=True).rotation
    with pytest.raises(BadRecipe, match=r"augment\.mixup"):
        resolve(Augment(mixup=0.5), colour, regression=True)
