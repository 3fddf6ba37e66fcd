"""Contact sheets: what is on them, how much of it, and that they are made once."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from imgcls.data import DatasetStore, open_dataset
from imgcls.eda import samples, sheets
from imgcls.eda.samples import SIDE, choose, sheet, thumbnails
from imgcls.eda.sheets import stored_sheet
from imgcls.errors import BadArgument

COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}


def png(colour, size=(12, 8)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def colours(tmp_path):
    """Images of one colour each, a class a colour, and a class name that is none of Latin's."""
    for label, colour in COLOURS.items():
        for n in range(9):
            path = tmp_path / "colours" / label / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png((*colour[:2], colour[2] + n // 3), (12 + n, 8)))
    (tmp_path / "colours" / "red" / "bad.png").write_bytes(b"x")
    (tmp_path / "colours" / "red").rename(tmp_path / "colours" / "красный 猫")
    return tmp_path / "colours"


def test_each_class_has_a_strip_of_its_own_images(colours):
    with open_dataset(colours) as dataset:
        strips = choose(dataset, count=4)
        assert [(strip.name, strip.total) for strip in strips] == [
            ("blue", 9), ("green", 9), ("красный 猫", 9),
        ]  # fmt: skip
        for strip in strips:
            assert len(set(strip.rows)) == 4
            assert {dataset.name(row).split("/")[0] for row in strip.rows} == {strip.name}
        assert choose(dataset, count=4) == strips != choose(dataset, count=4, seed=1)


def test_one_class_or_one_split_alone(colours):
    with open_dataset(colours) as dataset:
        (strip,) = choose(dataset, label="green", count=20)
        assert len(strip.rows) == 9
        chosen = choose(dataset, split="test", count=20)
        assert {row for strip in chosen for row in strip.rows} == set(dataset.rows("test").tolist())
        with pytest.raises(BadArgument, match="no class 'pink'; there are: blue"):
            choose(dataset, label="pink")
        with pytest.raises(BadArgument, match="no split"):
            choose(dataset, split="all")


def test_the_sheet_shows_the_pictures_in_their_rows(colours):
    with open_dataset(colours) as dataset:
        made = Image.open(io.BytesIO(sheet(dataset, choose(dataset, count=4), 4)))
    pixels = np.asarray(made).reshape(made.height, made.width, 3).astype(int)
    assert made.height // 3 > SIDE
    for row, channel in enumerate((2, 1, 0)):
        strip = pixels[row * made.height // 3 : (row + 1) * made.height // 3]
        coloured = strip[np.ptp(strip, axis=2) > 100]
        assert len(coloured) > 4 * SIDE * 8
        assert (coloured.argmax(axis=1) == channel).all()


def test_names_are_written_without_a_font_of_the_system(colours, monkeypatch):
    truetype = samples.ImageFont.truetype

    def missing(font, *args, **options):
        if isinstance(font, str):
            raise OSError("cannot open resource")
        return truetype(font, *args, **options)  # Pillow's own

    (colours / "green").rename(colours / "Äpfel")
    with open_dataset(colours) as dataset:
        strips = choose(dataset, count=1)
        monkeypatch.setattr(samples.ImageFont, "truetype", missing)
        assert [samples._font()[1](strip.name) for strip in strips] == [
            "blue", "Apfel", "??????? ?",
        ]  # fmt: skip
        assert sheet(dataset, strips, 1).startswith(b"\x89PNG")


def test_only_the_largest_classes_are_shown(colours, monkeypatch):
    monkeypatch.setattr(samples, "MAX_CLASSES", 2)
    (colours / "green" / "0.png").unlink()
    with open_dataset(colours) as dataset:
        assert [strip.name for strip in choose(dataset)] == ["blue", "красный 猫"]


def test_small_images_are_enlarged_and_bad_ones_grey(colours):
    with open_dataset(colours) as dataset:
        names = [dataset.name(row) for row in range(len(dataset))]
        rows = [names.index("blue/0.png"), names.index("красный 猫/bad.png")]
        small, bad = thumbnails(dataset, rows)
    assert small.size == (96, 64)
    assert bad.getpixel((0, 0)) == (0xDD, 0xE1, 0xE8)


def test_very_long_images_are_shown_too(colours):
    (colours / "green" / "long.png").write_bytes(png("green", (5_000, 3)))
    with open_dataset(colours) as dataset:
        names = [dataset.name(row) for row in range(len(dataset))]
        assert thumbnails(dataset, [names.index("green/long.png")])[0].size == (96, 1)


def test_targets_are_shown_by_their_range(tmp_path):
    lines = ["path,target"]
    for n in range(40):
        (tmp_path / f"{n}.png").write_bytes(png((n, 0, 0)))
        lines.append(f"{n}.png,{n}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with open_dataset(tmp_path / "t.csv") as dataset:
        strips = choose(dataset, count=20)
        assert strips[0].name == "0 to 4"
        assert sum(len(strip.rows) for strip in strips) == 40
        with pytest.raises(BadArgument, match="no classes"):
            choose(dataset, label="x")


def test_a_sheet_is_made_once_and_goes_with_the_dataset(colours, monkeypatch):
    store = DatasetStore()
    tag = store.add(colours).tag
    made = []
    monkeypatch.setattr(sheets, "sheet", lambda *args: made.append(1) or sheet(*args))
    first = stored_sheet(store, "colours")
    assert stored_sheet(store, tag) == first
    assert stored_sheet(store, tag, label="blue") != first
    assert len(made) == 2
    monkeypatch.setattr(sheets, "_KEPT", 1)
    stored_sheet(store, tag, label="green")
    assert len(list(store.folder(tag).glob("sheet-*"))) == 1
    store.remove(tag)
    assert not store.folder(tag).exists()


def test_a_sheet_that_cannot_be_kept_is_shown_all_the_same(colours, monkeypatch):
    store = DatasetStore()
    tag = store.add(colours).tag

    def full(path, data):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(sheets, "write_atomic", full)
    assert stored_sheet(store, tag)[1:4] == b"PNG"
