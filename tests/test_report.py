"""The report of a model as a page: whole in one file, and nothing in it is taken at its word."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcls.card import CurvePoint, Metrics, ModelCard
from imgcls.errors import BadModel, NotFound
from imgcls.registry import Registry
from imgcls.report import MISTAKES_FILE, REPORT_DIR, figures, page, plot, plots
from tests.fakes import jpeg, tiny_model

EVIL = "<script>alert(1)</script>\"'$x$"


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(registry: Registry, tmp_path: Path) -> Path:
    """A tiny model with two plots and one mistake."""
    folder = registry.folder(tiny_model(tmp_path / "model", registry))
    report = folder / REPORT_DIR
    report.mkdir()
    for name in ("confusion.png", "history.png", "other.png"):
        (report / name).write_bytes(png())
    (report / "00.jpg").write_bytes(jpeg())
    mistake = {"file": "00.jpg", "image": EVIL, "truth": EVIL, "answer": "red", "probability": 0.9}
    (report / MISTAKES_FILE).write_text(json.dumps({"mistakes": [mistake]}))
    return folder


class Tags(HTMLParser):
    """Tags with their attributes, and whether every one was closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_page_holds_all_of_its_pictures_and_no_script_of_anybody(folder: Path) -> None:
    text = page(folder, ModelCard.load(folder))
    tags = Tags(text).found
    pictures = [attrs["src"] for tag, attrs in tags if tag == "img"]
    assert len(pictures) == 3  # two plots and a mistake; what is no plot of ours is left out
    assert all(source and source.startswith("data:image/") for source in pictures)
    assert "script" not in {tag for tag, _ in tags}
    assert not any(name in attrs for _, attrs in tags for name in ("href", "onerror", "onload"))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "http" not in re.sub(r"http-equiv", "", text)


def test_a_page_shows_intervals_folds_and_the_learning_curve(folder: Path) -> None:
    card = ModelCard.load(folder)
    assert isinstance(card.metrics, Metrics)
    metrics = card.metrics.model_copy(update={"ece": 0.0312, "intervals": {"accuracy": (0.9, 1.0)}})
    folds = [metrics.model_copy(update={"accuracy": value}) for value in (0.5, 0.7)]
    curve = [CurvePoint(images=10, train={"accuracy": 0.99}, test={"accuracy": 0.4321})]
    card = card.model_copy(
        update={"metrics": metrics, "fold_metrics": folds, "learning_curve": curve}
    )
    assert figures(metrics)[0] == ("accuracy", 1.0, "0.900 to 1.000")
    text = page(folder, card)
    for shown in ("0.900 to 1.000", "0.0312", ">0.6000<", ">0.1414<", "0.4321"):
        assert shown in text


def test_a_model_without_pictures_has_a_page_all_the_same(
    registry: Registry, tmp_path: Path
) -> None:
    folder = registry.folder(tiny_model(tmp_path / "plain", registry))
    card = ModelCard.load(folder)
    assert card.tag in page(folder, card)
    assert plots(folder) == []
    with pytest.raises(NotFound, match="has no plots"):
        plot(folder, card, "confusion")


def test_a_plot_is_a_png_and_another_name_is_refused(folder: Path) -> None:
    card = ModelCard.load(folder)
    assert plot(folder, card, "history") == png()
    for name in ("other", "../card", "roc", "x" * 1000):
        with pytest.raises(NotFound, match="confusion, history"):
            plot(folder, card, name)


@pytest.mark.parametrize("file", ["../card.json", "01.jpg", "/etc/passwd"])
def test_a_report_that_points_elsewhere_is_damaged(folder: Path, file: str) -> None:
    mistake = {"file": file, "image": "a", "truth": "b", "answer": "c"}
    (folder / REPORT_DIR / MISTAKES_FILE).write_text(json.dumps({"mistakes": [mistake]}))
    with pytest.raises(BadModel, match="damaged"):
        page(folder, ModelCard.load(folder))
