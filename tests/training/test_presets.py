"""Every preset, end to end on real images: trained, exported, compared, registered, served.

Small: 150 images to learn from, one epoch, no pretrained weights. What they learn is not looked at;
that the service says what the trained model says is, on 200 validation images.
"""

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgcls.data import Dataset, open_dataset
from imgcls.data.labelling import Labelling
from imgcls.recipes import PRESETS, load_recipe
from imgcls.schemas import Prediction
from tests.conftest import Server
from training import train
from training.events import ignore
from training.fit import fit
from training.seeding import reproducible

TRAIN, VAL, TEST = 150, 200, 60
SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"network.width": 0.5},
    "linear-probe": {"image_size": 32, "features.weights": "none"},
    "real-or-fake": {"features.weights": "none"},
    "hog-svc": {},
    "hog-catboost": {"head.trees": 30},
    "hog-lightgbm": {"head.trees": 20},
    "sift-lightgbm": {"head.trees": 20, "features.words": 64},
    "efficientnet-b0": {"image_size": 32, "network.weights": "none"},
    "resnet50v2": {"image_size": 32},
    "cnn6": {"image_size": 32, "network.dense": 64},
    "score": {"image_size": 32, "network.weights": "none", "folds": None},
}
"""What makes a preset quick; everything else is as it is."""
AT_ONCE = 100
"""Images in a request; a service takes up to 256."""
PATTERN = "{id}_{gender}_{country}_{rate}_{votes}"


@pytest.fixture(scope="module")
def pets(pets_zip: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Dataset]:
    """Real photos in the given splits: of so many classes, or with rates in their names."""
    with zipfile.ZipFile(pets_zip) as archive:
        names = sorted(n for n in archive.namelist() if n.lower().endswith((".jpg", ".jpeg")))
        random.Random(0).shuffle(names)
        files = {name: archive.read(name) for name in names[: 3 * (TRAIN + VAL + TEST)]}
    labels = sorted({Path(name).parent.name for name in files})

    def make(classes: int) -> Dataset:
        root = tmp_path_factory.mktemp("pets") / "pets"
        wanted = labels[:classes] or labels
        chosen = [(name, data) for name, data in files.items() if Path(name).parent.name in wanted]
        for number, (name, data) in enumerate(chosen[: TRAIN + VAL + TEST]):
            split = "train" if number < TRAIN else "val" if number < TRAIN + VAL else "test"
            if classes:
                path = root / split / Path(name).parent.name / f"{number}.jpg"
            else:  # the brightness, as somebody might rate it
                rate = np.asarray(Image.open(io.BytesIO(data)).convert("L")).mean() / 25.5
                path = root / split / f"{number}_m_xx_{rate:.2f}_9.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if classes:
            return open_dataset(root)
        return open_dataset(root, labelling=Labelling(pattern=PATTERN, target="rate"))

    return make


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_trained_exported_registered_and_served(
    preset: str, pets: Callable[[int], Dataset], server: Server
) -> None:
    task = PRESETS[preset].task
    classes = 0 if task == "regression" else 2 if preset == "real-or-fake" else 3
    with pets(classes) as dataset:
        changes = SMALL[preset]
        if hasattr(PRESETS[preset].recipe, "epochs"):
            changes = changes | {"epochs": 1, "batch_size": 32}
        recipe = load_recipe(preset, changes)
        with reproducible(recipe.seed):
            fitted = fit(dataset, recipe, ignore)
        card = train(dataset, recipe, name=preset, registry=server.registry, fitted=fitted)
        rows = dataset.rows("val")
        assert len(rows) == VAL
        files = [dataset.read(int(row)) for row in rows]
    assert card.task == task
    assert card.parity <= 1e-3
    served: list[Prediction] = []
    with server.client() as client:
        for start in range(0, VAL, AT_ONCE):
            answer = client.predict(files[start : start + AT_ONCE], model=card.tag)
            assert answer.model == card.tag
            served += answer.predictions
    source = fitted.answers["val"].astype(np.float64)
    if task == "regression":
        scores = np.array([prediction.model_dump()["score"] for prediction in served])
        assert np.abs(scores - source).max() <= 1e-2  # of a range of 10
        return
    logits = np.log(source.clip(1e-12)) / card.temperature
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    found = np.array([[p.probabilities[label] for label in card.labels] for p in served])  # type: ignore[index]
    assert np.abs(found - expected).max() <= 1e-3
    lesser, greater = np.sort(expected, axis=1)[:, -2:].T
    told_apart = greater - lesser > 1e-6
    assert (found.argmax(1) == expected.argmax(1))[told_apart].all()
    verdicts = expected.argmax(1)
    if card.threshold is not None and len(card.labels) == 2:
        verdicts = (expected[:, 1] >= card.threshold).astype(int)
        told_apart = np.abs(expected[:, 1] - card.threshold) > 1e-4
    said = np.array([card.labels.index(p.label) for p in served])  # type: ignore[arg-type]
    assert (said == verdicts)[told_apart].all()
