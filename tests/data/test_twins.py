"""Twins: copies that were rescaled or encoded anew are found, pictures that only hash alike not."""

import io
import time

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from imgcls.data import open_dataset
from imgcls.data.pixelwise import CELLS
from imgcls.data.twins import SURE, Pairs, components, find_twins


def photo(seed: int, side: int = 96) -> Image.Image:
    """A smooth random picture, a different one for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def smaller(picture: Image.Image, share: float) -> Image.Image:
    side = round(picture.width * share)
    return picture.resize((side, side), Image.Resampling.LANCZOS)


@pytest.mark.parametrize("side", [32, 96])
def test_copies_that_differ_in_size_or_encoding_are_twins(zip_of, side):
    photos = {f"{k}/{n:02d}.jpg": photo(100 * k + n, side) for k in range(2) for n in range(40)}
    files = {path: jpeg(picture) for path, picture in photos.items()}
    for n in range(20):
        picture = photos[f"0/{n:02d}.jpg"]
        files[f"0/copy{n:02d}.jpg"] = jpeg(smaller(picture, 0.75) if n % 2 else picture, 60)
    with open_dataset(zip_of(files)) as dataset:
        pairs = find_twins(dataset.index)
        paths = dataset.index["path"].to_pylist()
    found = {(paths[a], paths[b]) for a, b in zip(pairs.first, pairs.second, strict=True)}
    planted = {(f"0/{n:02d}.jpg", f"0/copy{n:02d}.jpg") for n in range(20)}
    assert found <= planted
    assert len(found) >= 19
    assert np.mean(pairs.confidence >= SURE) >= 0.95


def test_pictures_in_another_colour_or_shape_are_no_twins(zip_of):
    picture = photo(1)
    redder = Image.fromarray(np.maximum(np.array(picture), np.array([90, 0, 0], np.uint8)))
    wide = picture.resize((96, 80))
    files = {f"dog/{n}.jpg": jpeg(photo(50 + n)) for n in range(3)}
    files |= {f"cat/{n}.jpg": jpeg(p) for n, p in enumerate((picture, redder, wide))}
    with open_dataset(zip_of(files)) as dataset:
        assert len(find_twins(dataset.index).first) == 0


def test_plain_pictures_have_nothing_to_be_compared_by(zip_of):
    files = {f"dog/{n}.jpg": jpeg(photo(50 + n)) for n in range(3)}
    files |= {f"cat/{n}.png": jpeg(Image.new("RGB", (40, 40), (n, n, n))) for n in range(20)}
    with open_dataset(zip_of(files)) as dataset:
        assert len(find_twins(dataset.index).first) == 0


@pytest.mark.parametrize("seed", range(5))
def test_twins_stay_on_one_side_of_splits_that_are_drawn(zip_of, seed):
    photos = [photo(n) for n in range(40)]
    files = {f"{n % 2}/{n:02d}.jpg": jpeg(picture) for n, picture in enumerate(photos)}
    files |= {f"{n % 2}/x{n:02d}.jpg": jpeg(smaller(p, 0.6), 70) for n, p in enumerate(photos)}
    files |= {f"{n % 2}/y{n:02d}.jpg": jpeg(p, 55) for n, p in enumerate(photos)}
    with open_dataset(zip_of(files), seed=seed) as dataset:
        rows = dataset.index.select(["path", "split"]).to_pylist()
    split = {row["path"]: row["split"] for row in rows}
    assert set(split.values()) == {"train", "val", "test"}
    for n in range(40):
        mine = {split[f"{n % 2}/{mark}{n:02d}.jpg"] for mark in ("", "x", "y")}
        assert len(mine) == 1


def test_components_are_those_of_a_walk_along_the_pairs():
    draw = np.random.default_rng(0)
    first, second = draw.integers(0, 200, (2, 120))
    found = components(200, Pairs(first, second, np.ones(120)))
    near: dict[int, set[int]] = {row: {row} for row in range(200)}
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        near[a].add(b)
        near[b].add(a)
    for row in range(200):
        seen, todo = set(), [row]
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += near[at]
        assert found[row] == min(seen)


def crowd(count: int, bits: int) -> pa.Table:
    """Different pictures whose hashes agree but for the last `bits`."""
    draw = np.random.default_rng(0)
    cells = draw.integers(0, 256, (count, CELLS), dtype=np.uint8)
    ones = np.ones(count, np.int64)
    columns = {
        "error": pa.nulls(count, pa.string()),
        "content_hash": [f"{n:040x}" for n in range(count)],
        "phash": draw.integers(0, 2**bits, count, dtype=np.uint64),
        "cells": pa.array([row.tobytes() for row in cells], pa.binary(CELLS)),
        **dict.fromkeys(("width", "height"), 10 * ones),
        **dict.fromkeys(("sum_r", "sum_g", "sum_b"), 12_000 * ones),
    }
    return pa.table(columns)


def test_time_is_linear_where_all_hashes_are_alike():
    find_twins(crowd(200, 3))
    times = []
    for count in (300, 2_400):
        table = crowd(count, 3)
        started = time.process_time()
        assert len(find_twins(table).first) == 0
        times.append(time.process_time() - started)
    assert times[1] < 20 * times[0]
