"""Demo: scikit-learn's digits from image files to predictions over HTTP, by the real parts.

Nothing here is a shortcut: the images are files, training is a job, the model passes its gate, and
the server is the one that `imgcls serve` starts.
"""

import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel

from imgcls import console
from imgcls.auth import own_token
from imgcls.card import ModelCard
from imgcls.cli.data import open_data
from imgcls.cli.eda import profile_tables
from imgcls.cli.local_server import running_server
from imgcls.cli.models import activate, metric_tables
from imgcls.cli.train import run_job
from imgcls.client import Client
from imgcls.eda import profile
from imgcls.errors import Conflict, TrainingFailed
from imgcls.jobs import JobRequest, can_train
from imgcls.recipes import load_recipe
from imgcls.settings import get_settings

NAME = "digits"
_EPOCHS = 12
"""Fewer than the recipe's own: enough for digits, and over sooner."""
_ASKED = 20
"""Test images that are predicted over HTTP."""
_ENOUGH = 0.9
"""Share of them that must be right; the model itself reaches more than 0.97."""


class DemoResult(BaseModel):
    model: str
    accuracy: float
    """On the whole test split, as the model's card states it."""
    asked: int
    right: int
    url: str
    pid: int
    kept: bool
    """Whether the server is still running."""
    seconds: float


def run(*, keep: bool = False, port: int = 0) -> DemoResult:
    """Everything once. Raises an `ImgclsError` where a step fails or predictions are wrong."""
    begun = time.monotonic()
    if not can_train():
        raise Conflict("The demo trains a model: install imgcls[train] first.")
    folder = get_settings().home / "demo" / NAME
    _say(1, f"{write_digits(folder):,} scanned digits as PNG files in {folder}")
    _say(2, "What is in them")
    with open_data(str(folder), 0) as dataset:
        if not console.is_json():
            console.show(*profile_tables(profile(dataset)))
        rows = dataset.rows("test")
        rows = rows[np.linspace(0, len(rows) - 1, _ASKED).astype(int)]
        truth = [dataset.labels[code] for code in dataset.targets(rows)]
        pictures = [dataset.read(int(row)) for row in rows]
        tag = dataset.tag
    recipe = load_recipe(overrides={"epochs": _EPOCHS})
    _say(3, f"Training with the recipe {recipe.kind} for {_EPOCHS} epochs, in its own process")
    request = JobRequest(dataset=tag, recipe=recipe.model_dump(mode="json"), name=NAME)
    card = run_job(request)[1]
    if not console.is_json():
        console.show(*metric_tables(card))
    activate(card.tag)
    _say(4, f"Registered {card.tag} and made it active")
    with tempfile.TemporaryDirectory(prefix="imgcls-demo-") as scratch:
        log = (get_settings().home / "demo" if keep else Path(scratch)) / "server.log"
        with running_server(port, log) as server:
            _say(5, f"The service is up: {server.url} (process {server.pid})")
            right = _ask(server.url, card, pictures, truth)
            server.keep = keep
    result = DemoResult(
        model=card.tag,
        accuracy=card.metrics.headline()["accuracy"],
        asked=len(truth),
        right=right,
        url=server.url,
        pid=server.pid,
        kept=keep,
        seconds=round(time.monotonic() - begun, 1),
    )
    _how_to_go_on(result, folder)
    return result


def write_digits(folder: Path) -> int:
    """Write the digits as `folder/<digit>/<number>.png`, 8 x 8 grey; returns how many there are.

    Files that are there already with the same content are left alone, so that the dataset's
    index stays good.
    """
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    grey = (data.images * (255 / 16)).round().astype(np.uint8)
    for number, (picture, digit) in enumerate(zip(grey, data.target, strict=True)):
        path = folder / str(digit) / f"{number:04}.png"
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        if not path.exists() or path.read_bytes() != buffer.getvalue():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buffer.getvalue())
    return len(grey)


def _ask(url: str, card: ModelCard, pictures: list[bytes], truth: list[str]) -> int:
    """Predict over HTTP and compare; returns how many were right."""
    with Client(url, token=own_token()) as client:
        answer = client.predict(pictures)
        single = client.predict(pictures[0])
    if {answer.model, single.model} != {card.tag}:
        raise TrainingFailed(f"The server answered with {answer.model}, not with {card.tag}.")
    marks = [(t, p.label, p.probability) for t, p in zip(truth, answer.predictions, strict=True)]
    if not console.is_json():
        rows = [
            (true, label, f"{probability or 0:.3f}", "" if label == true else "wrong")
            for true, label, probability in marks
        ]
        console.show(
            f"{len(rows)} test images, predicted over HTTP",
            console.table(["true", "predicted", "#probability", ""], rows),
        )
    right = sum(true == label for true, label, _ in marks)
    if single.predictions[0].label != marks[0][1] or right < _ENOUGH * len(marks):
        raise TrainingFailed(f"Only {right} of {len(marks)} test images were predicted rightly.")
    return right


def _say(number: int, text: str) -> None:
    console.note(f"[{number}/5] {text}", style="bold")


def _how_to_go_on(result: DemoResult, folder: Path) -> None:
    if result.kept:
        console.note(f"The server goes on at {result.url}; stop it with: kill {result.pid}")
    else:
        console.note("The server is stopped again.")
    url = result.url if result.kept else "http://127.0.0.1:3000"
    serve = "" if result.kept else "  imgcls serve                         the same server again\n"
    console.note(
        f"To go on:\n{serve}"
        f"  curl -F images=@{folder / '3' / '0003.png'} {url}/predict\n"
        "  imgcls train YOUR_IMAGES --activate  a folder, zip or tar, with a folder a class\n"
        "  imgcls models list"
    )
    told = (
        f"{result.right} of {result.asked} test images predicted rightly over HTTP by "
        f"{result.model} ({result.seconds:.0f} s)"
    )
    if console.is_json():
        console.note(told)
    else:
        console.show(told)
