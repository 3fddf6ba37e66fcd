"""The drift score: near nothing for more of the same, large for something else."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imgcls.drift import MIN_REFERENCE, MIN_SEEN, REFERENCE_FILE, WINDOW, Drift, Floats, Reference
from imgcls.engine import Engine
from imgcls.metrics import ModelTallies
from imgcls.predictor import Predictor
from imgcls.registry import Registry
from imgcls.watch import Watched
from tests.fakes import jpeg, tiny_model, tiny_regression


def draw(count: int, shift: float = 0.0, dims: int = 16, seed: int = 0) -> Floats:
    scales = np.linspace(0.1, 100, dims)
    drawn = np.random.default_rng(seed).normal(5 + shift, 1, (count, dims)) * scales
    return drawn.astype(np.float32)


def reference(embedding: Floats) -> Reference:
    made = Reference.of(embedding)
    assert made is not None
    return made


def feed(drift: Drift, embedding: Floats, batch: int = 8) -> None:
    for start in range(0, len(embedding), batch):
        drift.add(embedding[start : start + batch])


@pytest.mark.parametrize("batch", [1, 7, 32])
def test_more_of_the_same_scores_near_zero_and_a_shift_its_size(batch: int) -> None:
    then = reference(draw(2000))
    same, shifted = Drift(then), Drift(then)
    feed(same, draw(3000, seed=1), batch)
    feed(shifted, draw(3000, shift=0.8, seed=1), batch)
    assert same.score() == pytest.approx(0, abs=0.1)
    assert shifted.score() == pytest.approx(0.8, abs=0.1)


def test_the_running_mean_forgets() -> None:
    drift = Drift(reference(draw(2000)))
    feed(drift, draw(2000, shift=3))
    assert (drift.score() or 0) > 2.5
    feed(drift, draw(WINDOW, seed=2))
    assert drift.score() == pytest.approx(3 / np.e, rel=0.1)
    feed(drift, draw(5 * WINDOW, seed=3))
    assert (drift.score() or 1) < 0.15


def test_there_is_no_score_before_enough_images() -> None:
    drift = Drift(reference(draw(200)))
    feed(drift, draw(MIN_SEEN - 1), batch=1)
    assert drift.score() is None
    drift.add(draw(1))
    assert drift.score() is not None


def test_dimensions_that_never_moved_in_training_do_not_count() -> None:
    still = np.concatenate([draw(100), np.full((100, 4), 3.0, np.float32)], axis=1)
    now = np.concatenate([draw(200), np.full((200, 4), 900.0, np.float32)], axis=1)
    drift = Drift(reference(still))
    feed(drift, now)
    assert (drift.score() or 9) < 0.3


def test_an_embedding_of_another_width_is_passed_over() -> None:
    drift = Drift(reference(draw(100)))
    feed(drift, draw(2 * MIN_SEEN, dims=5))
    assert drift.score() is None


def test_a_reference_of_few_images_is_none() -> None:
    assert Reference.of(draw(MIN_REFERENCE - 1)) is None
    assert Reference.of(draw(MIN_REFERENCE)) is not None


def test_a_reference_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert Reference.load(tmp_path) is None
    then = reference(draw(100))
    then.save(tmp_path)
    assert Reference.load(tmp_path) == then


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b'{"images": 9, "mean": [1], "std": [1, 2]}', b'{"mean": [], "std": []}']
)
def test_a_damaged_reference_costs_the_score_and_nothing_else(
    registry: Registry, tmp_path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    tag = tiny_model(tmp_path / "m", registry)
    (registry.folder(tag) / REFERENCE_FILE).write_bytes(damaged)
    watched = Watched(Engine.load(registry.folder(tag)), ModelTallies())
    assert watched.answers(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 3)
    assert watched.drift() is None
    assert REFERENCE_FILE in caplog.text


def colourful(registry: Registry, folder: Path) -> str:
    """A tiny model whose reference is made of red, green and blue in equal parts."""
    tag = tiny_model(folder, registry)
    engine = Engine.load(registry.folder(tag))
    pixels = np.zeros((60, 32, 32, 3), np.uint8)
    for number in range(60):
        pixels[number, :, :, number % 3] = 255
    reference(engine.run(pixels)[1]).save(registry.folder(tag))
    return tag


def watched(registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """A predictor that looks at every batch."""
    monkeypatch.setattr("imgcls.watch.LOOK_SECONDS", 0)
    registry.point(colourful(registry, folder))
    return Predictor(registry)


def run(predictor: Predictor, colours: list[str]) -> float | None:
    async def main() -> float | None:
        await predictor.start()
        try:
            batcher = await predictor._batcher(None, time.monotonic() + 10)
            for colour in colours:
                await predictor.predict([jpeg(colour)])
            return batcher.engine.drift()
        finally:
            await predictor.stop()

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        (["red", "lime", "blue"], lambda score: score < 0.15),
        (["red", "red", "red"], lambda score: score > 0.7),
    ],
)
def test_live_images_move_the_score(
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    colours: list[str],
    expected: Callable[[float], bool],
) -> None:
    score = run(watched(registry, tmp_path / "m", monkeypatch), colours * 50)
    assert score is not None
    assert expected(score), score


def test_a_regression_drifts_too(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgcls.watch.LOOK_SECONDS", 0)
    folder = registry.folder(tiny_regression(tmp_path / "m", registry))
    engine = Engine.load(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    reference(engine.run(pixels)[1]).save(folder)
    watched = Watched(engine, ModelTallies())
    for _ in range(3):
        assert watched.answers(np.zeros((40, 32, 32, 3), np.uint8)).tolist() == [0] * 40
    assert (watched.drift() or 0) > 5


def test_probes_of_readiness_are_no_images(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.point(colourful(registry, tmp_path / "m"))
    monkeypatch.setattr("imgcls.predictor._READY_SECONDS", 0)
    predictor = Predictor(registry)

    async def main() -> float | None:
        await predictor.start()
        try:
            batcher = await predictor._batcher(None, time.monotonic() + 10)
            for _ in range(MIN_SEEN + 50):
                assert await predictor.ready()
            return batcher.engine.drift()
        finally:
            await predictor.stop()

    assert asyncio.run(main()) is None
