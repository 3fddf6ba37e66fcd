"""What training draws of a model, and which test images it calls its worst mistakes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcls.card import CurvePoint, Interval, RegressionMetrics
from imgcls.data import Dataset, open_dataset
from imgcls.recipes import NetworkRecipe
from imgcls.registry import Registry
from imgcls.report import MISTAKES_FILE, REPORT_DIR, Mistakes, page, plots
from training import train
from training.judge import Judge
from training.report import MOST_MISTAKES, write_report


def test_a_model_has_its_plots_whatever_its_classes_are_called(
    shapes: Callable[..., Path], registry: Registry, small_cnn: NetworkRecipe, tmp_path: Path
) -> None:
    root = tmp_path / "names"
    root.mkdir()
    names = {"blue": "$x_{blue$", "green": "りんご", "red": "a" * 100}
    for colour, name in names.items():
        shutil.copytree(shapes() / colour, root / name)
    card = train(open_dataset(root), small_cnn, name="named", registry=registry)
    folder = registry.folder(card.tag)
    assert plots(folder)[:5] == ["confusion", "classes", "reliability", "roc", "history"]
    for name in plots(folder):
        with Image.open(folder / REPORT_DIR / f"{name}.png") as image:
            assert image.format == "PNG"
            assert min(image.size) > 150
            assert np.asarray(image.convert("L")).std() > 5  # something is drawn
    assert "りんご" in page(folder, card)


def drawn(
    dataset: Dataset, registry: Registry, recipe: NetworkRecipe, folder: Path, answers: np.ndarray
) -> list[tuple[str, str, str, float | None]]:
    card = train(dataset, recipe, name="shapes", registry=registry)
    rows = dataset.rows("test")
    folder.mkdir()
    judge = Judge(dataset.labels)
    write_report(folder, card, judge, dataset, rows, dataset.targets(rows), answers)
    listed = (folder / REPORT_DIR / MISTAKES_FILE).read_bytes()
    found = Mistakes.model_validate_json(listed).mistakes
    assert all((folder / REPORT_DIR / one.file).is_file() for one in found)
    return [(one.image, one.truth, one.answer, one.probability) for one in found]


def test_the_worst_mistakes_are_the_surest_ones(
    dataset: Dataset, registry: Registry, small_cnn: NetworkRecipe, tmp_path: Path
) -> None:
    rows = dataset.rows("test")
    targets = dataset.targets(rows)
    answers = np.eye(3, dtype=np.float32)[targets]
    answers[2] = np.roll(answers[2], 1) * 0.6 + answers[2] * 0.4
    answers[5] = np.roll(answers[5], 1) * 0.8 + answers[5] * 0.2
    found = drawn(dataset, registry, small_cnn, tmp_path / "few", answers)
    assert [(image, p) for image, _, _, p in found] == [
        (dataset.name(int(rows[5])), 0.8),
        (dataset.name(int(rows[2])), 0.6),
    ]
    assert [truth for _, truth, _, _ in found] == [dataset.labels[targets[i]] for i in (5, 2)]
    assert all(truth != answer for _, truth, answer, _ in found)


def test_a_report_of_a_regression_shows_answers_beside_the_truth(
    dataset: Dataset, registry: Registry, small_cnn: NetworkRecipe, tmp_path: Path
) -> None:
    card = train(dataset, small_cnn, name="shapes", registry=registry)
    rows = np.concatenate([dataset.rows("train"), dataset.rows("test")])
    truth = np.linspace(0, 10, len(rows)).astype(np.float32)
    scores = truth + np.linspace(0, 1, len(rows)).astype(np.float32)
    interval = Interval(coverage=0.9, half_width=0.8)
    judge = Judge([], output_range=(0, 10), interval=interval, median=5.0)
    metrics = judge.measure(truth, scores, resamples=0)
    assert isinstance(metrics, RegressionMetrics)
    curve = [CurvePoint(images=n, train={"mae": 1.0}, test={"mae": 2.0}) for n in (5, 9)]
    card = card.model_copy(
        update={"metrics": metrics, "labels": [], "task": "regression", "target": "rate",
                "interval": interval, "learning_curve": curve, "output_range": (0, 10)}
    )  # fmt: skip
    (tmp_path / "scores").mkdir()
    write_report(tmp_path / "scores", card, judge, dataset, rows, truth, scores)
    assert plots(tmp_path / "scores") == [
        "predictions", "errors", "history", "learning_curve", "mistakes",
    ]  # fmt: skip
    listed = (tmp_path / "scores" / REPORT_DIR / MISTAKES_FILE).read_bytes()
    found = Mistakes.model_validate_json(listed).mistakes
    assert len(found) == MOST_MISTAKES
    assert (found[0].truth, found[0].answer, found[0].probability) == ("10", "11", None)
    text = page(tmp_path / "scores", card)
    assert "0.8" in text
    assert "MAE of the median" in text


@pytest.mark.parametrize("abstain", [None, 0.5])
def test_abstaining_is_chosen_on_validation_images_and_told(
    dataset: Dataset, small_cnn: NetworkRecipe, abstain: float | None
) -> None:
    card = train(dataset, small_cnn.model_copy(update={"abstain_error": abstain}), name="sure")
    assert (card.abstain_below is None) == (abstain is None)
    assert card.temperature != 1.0
    plain = train(dataset, small_cnn.model_copy(update={"calibrate": False}), name="plain")
    assert plain.temperature == 1.0
