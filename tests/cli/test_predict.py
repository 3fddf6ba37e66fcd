"""`imgcls predict`: any files in, one row each out, whatever some of them are."""

import csv
import io
import itertools
import json
import os
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from imgcls import offline
from imgcls.cli.app import app
from imgcls.engine import gate
from imgcls.errors import BadArgument
from imgcls.prediction import render
from imgcls.registry import Registry
from tests.fakes import class_folders, jpeg, no_number_for_black, tiny_model, tiny_regression


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def rows(*arguments: object) -> list[dict[str, Any]]:
    result = predict(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(autouse=True)
def tag(registry: Registry, tmp_path: Path) -> str:
    tag = tiny_model(tmp_path / "model", registry, "tiny")
    registry.point(tag)
    return tag


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine images, one that is none, and a file that nobody asked about."""
    folder = class_folders(tmp_path / "photos", per_class=3)
    (folder / "red" / "broken.jpg").write_bytes(b"no image")
    (folder / "red" / "notes.txt").write_text("hello")
    return folder


def test_a_folder_gives_a_row_for_every_image_in_it(photos: Path) -> None:
    found = rows(photos)
    assert [row["path"] for row in found] == sorted(row["path"] for row in found)
    assert len(found) == 10
    for row in found:
        if row["path"].endswith("broken.jpg"):
            assert (row["label"], row["probability"], row["p_red"]) == (None, None, None)
            assert "not an image" in row["error"]
        else:
            assert row["label"] == Path(row["path"]).parent.name
            assert row["probability"] == row[f"p_{row['label']}"]
            assert sum(row[f"p_{c}"] for c in ("red", "green", "blue")) == pytest.approx(1, 1e-4)


@pytest.mark.parametrize("large", [False, True])
def test_files_folders_patterns_and_archives_are_the_same_images(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(offline, "_LARGE", 0)
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in photos.rglob("*.*"):
            archive.write(path, path.relative_to(photos))
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as tar:
        tar.add(photos, ".")
    monkeypatch.chdir(tmp_path)
    ways = ["photos", "p.zip", "p.tar.gz", "photos/**/*.jpg", "photos/*"]
    found = [sorted((r["label"] or "", r["p_red"] or 0) for r in rows(way)) for way in ways]
    assert all(other == found[0] for other in found[1:])
    assert len(rows("photos/red", "p.zip")) == 4 + 10


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_every_format_holds_the_same_rows(photos: Path, tmp_path: Path, batch: int) -> None:
    expected = rows(photos, "--batch", batch)
    for ending in (".csv", ".jsonl", ".parquet"):
        out = tmp_path / f"answers{ending}"
        result = predict(photos, "--out", out, "--batch", batch, "--json")
        summary = json.loads(result.stdout)
        assert (summary["images"], summary["failed"], summary["out"]) == (10, 1, str(out))
        assert not list(tmp_path.glob("*.part"))
        found = read(out)
        assert [list(row) for row in found] == [list(row) for row in expected]
        for got, want in zip(found, expected, strict=True):
            for key, value in want.items():
                assert got[key] == (pytest.approx(value, abs=1e-6) if value is not None else None)


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        table: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return table
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    numbers = ("probability", "p_", "score", "low", "high")
    with path.open(newline="") as file:
        return [
            {
                key: None if value == "" else float(value) if key.startswith(numbers) else value
                for key, value in row.items()
            }
            for row in csv.DictReader(file)
        ]


def test_it_answers_as_the_service_does(registry: Registry, photos: Path, tmp_path: Path) -> None:
    two = tiny_model(tmp_path / "two", registry, "two", ("red", "green"), threshold=0.4)
    careful = tiny_model(tmp_path / "careful", registry, "careful", abstain_below=0.9)
    for model, options in itertools.product(
        ("tiny", two, careful), ({}, {"top_k": 1}, {"threshold": 0.9})
    ):
        engine = gate(registry.folder(model))
        if "threshold" in options and engine.card.threshold is None:
            continue
        items = [(c, lambda c=c: jpeg(c)) for c in ("red", "green", "blue", "gray")]
        (answers,) = offline.predict(engine, items, **options)  # type: ignore[arg-type]
        pixels = [offline.images.load(read(), engine.card.preprocessing) for _, read in items]
        for i, row in enumerate(engine.answers(np.stack(pixels))):
            served = render(engine.card, row, **options)  # type: ignore[arg-type]
            assert answers.labels[i] == served["label"]
            assert answers.probability[i] == pytest.approx(served["probability"], abs=1e-6)
            kept = answers.probabilities[i]
            shares = {engine.card.labels[c]: p for c, p in enumerate(kept) if not np.isnan(p)}
            assert shares == pytest.approx(served["probabilities"], abs=1e-6)
            assert answers.abstained[i] == served.get("abstained")


@pytest.mark.parametrize("interval", [1.2, None])
def test_a_regression_gives_a_score_for_every_image_in_every_format(
    registry: Registry, tmp_path: Path, interval: float | None
) -> None:
    model = tiny_regression(tmp_path / "r", registry, half_width=interval)
    for colour in ("black", "grey", "white"):
        (tmp_path / f"{colour}.jpg").write_bytes(jpeg(colour))
    (tmp_path / "zero.jpg").write_bytes(b"no image")
    ask = (tmp_path / "*.jpg", "--model", model)
    found = rows(*ask)
    bounds = [] if interval is None else ["low", "high"]
    assert [list(row) for row in found] == [["path", "score", *bounds, "error"]] * 4
    assert [row["score"] for row in found] == [0, pytest.approx(5, abs=0.1), 10, None]
    if interval is not None:
        assert [row["high"] for row in found[::2]] == [1.2, 10]
        assert found[3]["low"] is None
    for ending in (".csv", ".jsonl", ".parquet"):
        out = tmp_path / f"answers{ending}"
        summary = json.loads(predict(*ask, "--out", out, "--json").stdout)
        assert (summary["failed"], summary["scores"]["max"]) == (1, 10)
        assert read(out) == [row | {"error": row["error"] or None} for row in found]
    shown = predict(*ask)
    assert "brightness" in shown.stderr
    assert ("8.8" in shown.stdout) == (interval is not None)
    assert "on average, 0 to 10" in shown.stderr
    assert predict(*ask, "--top-k", "1").exit_code == 1


def test_abstentions_are_counted_and_marked(registry: Registry, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "c", registry, "careful", abstain_below=0.9)
    for colour in ("red", "grey"):
        (tmp_path / f"{colour}.jpg").write_bytes(jpeg(colour))
    ask = (tmp_path / "grey.jpg", tmp_path / "red.jpg", "--model", model)
    assert [row["abstained"] for row in rows(*ask)] == [True, False]
    for ending, told in ((".csv", ["True", "False"]), (".parquet", [True, False])):
        out = tmp_path / f"answers{ending}"
        assert json.loads(predict(*ask, "--out", out, "--json").stdout)["abstained"] == 1
        assert [row["abstained"] for row in read(out)] == told
    shown = predict(*ask)
    assert shown.stdout.count("(abstained)") == 1
    assert "1 abstained" in shown.stderr


def test_an_image_without_a_number_for_an_answer_is_a_row_with_an_error(
    registry: Registry, tmp_path: Path
) -> None:
    model = tiny_model(tmp_path / "n", registry, "odd", change=no_number_for_black)
    (tmp_path / "blue.jpg").write_bytes(jpeg("blue"))
    Image.new("RGB", (8, 8)).save(tmp_path / "dark.png")
    blue, dark = rows(tmp_path / "blue.jpg", tmp_path / "dark.png", "--model", model)
    assert (blue["label"], blue["error"]) == ("blue", None)
    assert dark["label"] is None
    assert "no number" in dark["error"]


def test_a_table_is_shown_without_out_or_json(photos: Path) -> None:
    result = predict(photos)
    assert result.exit_code == 0
    assert "broken.jpg" in result.stdout
    assert "red 0.99" in result.stdout
    assert "10 images, 1 cannot be read" in result.stderr


def test_a_file_without_an_ending_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "4f2a").write_bytes(jpeg("green"))
    assert [row["label"] for row in rows(tmp_path / "4f2a")] == ["green"]


def test_it_fails_only_if_no_image_could_be_read(photos: Path) -> None:
    assert predict(photos).exit_code == 0
    assert predict(photos / "red" / "broken.jpg").exit_code == 1


@pytest.mark.parametrize("options", [["--threshold", "0.5"], ["--out", "answers.xlsx"]])
def test_options_that_do_not_fit_are_refused(photos: Path, options: list[str]) -> None:
    assert predict(photos, *options).exit_code in (1, 2)


def test_what_is_not_there_is_refused_before_any_work(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "answers.csv"
    for missing in ("nowhere", "no*where", tmp_path / "no.zip"):
        result = predict(photos, missing, "--out", out)
        assert result.exit_code == 1
        assert str(missing) in result.stderr
    (tmp_path / "empty").mkdir()
    assert predict(tmp_path / "empty", "--out", out).exit_code == 2
    assert not out.exists()


def test_without_an_active_model_one_must_be_named(registry: Registry, photos: Path) -> None:
    registry.unset()
    result = predict(photos)
    assert result.exit_code == 1
    assert "--model" in result.stderr
    assert len(rows(photos, "--model", "tiny")) == 10


def test_odd_names_and_odd_files_are_rows_like_any_other(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("[red] :dog: ü.jpg", "line\nbreak.jpg", "tab\tand,comma.jpg"):
        (folder / name).write_bytes(jpeg("red"))
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jpg"))).write_bytes(jpeg("red"))
    os.mkfifo(folder / "pipe.jpg")
    (folder / "gone.jpg").symlink_to("nowhere")
    out = tmp_path / "odd.csv"
    assert predict(folder, "--out", out).exit_code == 0
    found = {Path(row["path"]).name: row["label"] for row in read(out)}
    assert found == {
        "[red] :dog: ü.jpg": "red",
        "line\nbreak.jpg": "red",
        "tab\tand,comma.jpg": "red",
        "\\udcff.jpg": "red",
        "pipe.jpg": None,
        "gone.jpg": None,
    }
    assert "[red] :dog: ü.jpg" in predict(folder).stdout


def test_only_a_few_batches_are_read_ahead(registry: Registry) -> None:
    engine = gate(registry.folder("tiny"))
    taken = 0
    data = jpeg("red")

    def endless() -> Iterator[offline.Item]:
        nonlocal taken
        while True:
            taken += 1
            yield "x.jpg", lambda: data

    answers = offline.predict(engine, endless(), batch=8, threads=2)
    for _ in range(5):
        assert len(next(answers).paths) == 8
    assert taken <= 8 * (5 + 4)
    answers.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_large_files_of_an_archive_are_read_when_they_are_decoded(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    picture = io.BytesIO()
    Image.fromarray(noise).save(picture, "PNG")
    with zipfile.ZipFile(tmp_path / "large.zip", "w") as archive:
        for number in range(40):
            archive.writestr(f"{number:02d}.png", picture.getvalue())
    with offline.Inputs([str(tmp_path / "large.zip")]) as inputs:
        tracemalloc.start()
        items = list(inputs)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert held < len(picture.getvalue())
        assert {read() for _, read in items} == {picture.getvalue()}


def test_an_interrupted_run_leaves_the_answers_so_far_and_no_finished_file(
    registry: Registry, tmp_path: Path
) -> None:
    from imgcls.cli.answers import OutFile

    engine = gate(registry.folder("tiny"))
    out = tmp_path / "answers.parquet"

    def items() -> Iterator[offline.Item]:
        yield from [("x.jpg", lambda: jpeg("red"))] * 9
        raise KeyboardInterrupt

    def run() -> None:
        with OutFile(out, engine.card) as file:
            for answers in offline.predict(engine, items(), batch=1):
                file.write(answers)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert not out.exists()
    assert 1 <= pq.read_table(tmp_path / "answers.parquet.part").num_rows < 9


def test_the_same_path_twice_is_two_rows_and_bad_options_are_refused(
    registry: Registry, photos: Path
) -> None:
    image = photos / "red" / "000.jpg"
    assert len(rows(image, image)) == 2
    with pytest.raises(BadArgument, match="top_k"):
        next(offline.predict(gate(registry.folder("tiny")), [], top_k=0))
