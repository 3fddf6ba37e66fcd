"""Scale: a real cluster of two nodes gives what one machine gives, also when a node dies."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgcls import offline, scale
from imgcls.data import open_dataset
from imgcls.data.journal import Journal
from imgcls.data.measure import Measures
from imgcls.data.scan import scan
from imgcls.data.source import Source, open_source
from imgcls.eda import profile
from imgcls.engine import gate
from imgcls.errors import BadArgument, BadDataset
from imgcls.offline import Answers
from imgcls.recipes.types import FeaturesRecipe, HogFeatures, LinearHead
from imgcls.registry import Registry
from imgcls.scale import RayScanner, measuring, predicting
from imgcls.settings import get_settings
from tests.commands import answer, imgcls, without
from tests.fakes import class_folders, tiny_model
from tests.scale.conftest import NODE, patiently

FIELDS = ("paths", "errors", "labels", "probability", "abstained", "scores", "intervals")


def same(found: list[Answers], expected: list[Answers]) -> None:
    """Batch by batch and to the last bit."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert all(getattr(one, field) == getattr(other, field) for field in FIELDS)
        assert one.probabilities.tobytes() == other.probabilities.tobytes()


def equal(found: Measures, expected: Measures) -> None:
    """In every column."""
    assert found.error == expected.error
    for name in ("numbers", "blur", "cells", "content_hash", "format"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


@pytest.fixture
def pets(pets_zip: Path, tmp_path: Path) -> Source:
    return open_source(pets_zip, tmp_path / "unused.tar")


def test_the_profile_of_an_archive_is_that_of_one_machine(
    connected: str, pets_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    with open_dataset(pets_zip, name="pets") as dataset:
        index, expected = dataset.index, profile(dataset)
    monkeypatch.setenv("IMGCLS_HOME", str(tmp_path / "other"))
    get_settings.cache_clear()
    with open_dataset(
        pets_zip,
        name="pets",
        scanner=RayScanner(connected),
        progress=lambda done, total: seen.append(done),
    ) as dataset:
        assert dataset.index.equals(index)
        assert profile(dataset) == expected
    assert seen == sorted(seen)
    assert seen[-1] == len(index) == 5400


def test_broken_files_of_a_folder_are_the_same_findings(connected: str, tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "photos", per_class=3)
    (folder / "red" / "broken.jpg").write_bytes(b"no image")
    listing = open_source(folder, tmp_path / "unused.tar").listing
    expected = scan("folder", folder, listing.entries)
    found = RayScanner(connected)("folder", folder, listing.entries)
    assert len(found.error) == 1
    equal(found, expected)


def test_predictions_are_those_of_one_machine_to_the_last_bit(
    connected: str, pets_zip: Path, registry: Registry, tmp_path: Path
) -> None:
    engine = gate(registry.folder(tiny_model(tmp_path / "model", registry)))
    folder = class_folders(tmp_path / "photos", per_class=11)
    (folder / "green" / "broken.jpg").write_bytes(b"no image")
    paths = [str(folder), str(pets_zip), str(folder / "red" / "000.jpg")]
    with offline.Inputs(paths) as inputs:
        options: dict[str, Any] = {"batch": 48, "top_k": 2}
        expected = list(offline.predict(engine, inputs, **options))
        found = list(scale.predict(engine, inputs, **options))
    assert sum(len(answers.paths) for answers in found) == 34 + 5400 + 1
    same(found, expected)


def test_a_dataset_and_answers_by_the_command_line(
    connected: str, registry: Registry, tmp_path: Path
) -> None:
    registry.point(tiny_model(tmp_path / "model", registry))
    photos = class_folders(tmp_path / "photos", per_class=4)
    ray = ["--engine", "ray", "--address", connected]
    for command in (["data", "add", photos, "--name", "one"], ["eda", photos]):
        answer(*command, *ray)
    answers = []
    for more in ([], ray):
        out = tmp_path / f"answers{len(more)}.csv"
        result = imgcls("predict", photos, "--out", out, *more)
        assert result.exit_code == 0, result.output
        answers.append(out.read_bytes())
    assert answers[0] == answers[1]


def test_features_are_those_of_one_machine_to_the_last_bit(
    connected: str, pets_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.fit_features import fit_features

    recipe = FeaturesRecipe(features=HogFeatures(), head=LinearHead(epochs=1))
    kept = []
    for home, cluster in (("one", None), ("two", connected)):
        monkeypatch.setenv("IMGCLS_HOME", str(tmp_path / home))
        get_settings.cache_clear()
        with open_dataset(pets_zip, name="pets") as dataset:
            some = {split: dataset.rows(split)[::5] for split in ("train", "val", "test")}
            fit_features(dataset.view(**some), recipe, lambda *_, **__: None, cluster=cluster)
        files = (tmp_path / home / "cache" / "features").glob("*.npy")
        kept.append({path.name: path.read_bytes() for path in files})
    assert len(kept[0]) == 1  # of all images, once
    assert kept[0] == kept[1]


def test_an_image_that_is_gone_ends_the_features(connected: str, tmp_path: Path) -> None:
    from imgcls.card import Preprocessing

    folder = class_folders(tmp_path / "photos", per_class=6)
    with open_dataset(folder) as dataset:
        (folder / "red" / "000.jpg").unlink()
        chunks = scale.extract(
            dataset, b"", np.arange(len(dataset)), Preprocessing(height=8, width=8)
        )
        with pytest.raises(BadDataset, match=r"red/000\.jpg cannot be decoded"):
            list(chunks)


def test_what_a_node_does_not_see_is_refused_by_name(
    connected: str, registry: Registry, tmp_path: Path
) -> None:
    folder = class_folders(tmp_path / "photos", per_class=1)
    listing = open_source(folder, tmp_path / "unused.tar").listing
    engine = gate(registry.folder(tiny_model(tmp_path / "model", registry)))
    with offline.Inputs([str(folder)]) as inputs:
        chunks = inputs.parts(3)
        first = next(chunks)
        folder.rename(tmp_path / "gone")
        with pytest.raises(BadDataset, match="does not see"):
            predicting._predict([first], None, {})  # type: ignore[arg-type]
    with pytest.raises(BadDataset, match="photos"):
        RayScanner(connected)("folder", folder, listing.entries)
    assert engine


def test_a_node_that_is_killed_half_way_loses_nothing(
    cluster: Any,
    connected: str,
    pets: Source,
    pets_zip: Path,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, "CHUNK_FILES", 50)
    monkeypatch.setattr(predicting, "CHUNK_FILES", 50)
    entries = pets.listing.entries
    entries = entries.take(np.argsort(entries.offset, kind="stable"))
    doomed = [patiently(lambda: cluster.add_node(**NODE))]

    def kill() -> None:
        if doomed:
            cluster.remove_node(doomed.pop(), allow_graceful=False)

    expected = scan("zip", pets_zip, entries)
    found = RayScanner(connected)(
        "zip", pets_zip, entries, progress=lambda done, total: kill() if done > 500 else None
    )
    assert not doomed
    equal(found, expected)

    doomed.append(patiently(lambda: cluster.add_node(**NODE)))
    engine = gate(registry.folder(tiny_model(tmp_path / "model", registry)))
    answers = []
    with offline.Inputs([str(pets_zip)]) as inputs:
        for batch in scale.predict(engine, inputs, batch=50):
            answers.append(batch)
            if len(answers) == 10:
                kill()
        same(answers, list(offline.predict(engine, inputs, batch=50)))
    assert not doomed


def test_a_pass_that_was_interrupted_goes_on(
    connected: str, pets: Source, pets_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgcls.data.scan._KEEP_FILES", 1)
    entries = pets.listing.entries
    entries = entries.take(np.argsort(entries.offset, kind="stable"))
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if done > 2_000:
            raise KeyboardInterrupt

    ask = partial(
        RayScanner(connected), "zip", pets_zip, entries, journal=Journal(tmp_path / "journal")
    )
    with pytest.raises(KeyboardInterrupt):
        ask(progress=stop)
    seen.clear()
    found = ask(progress=lambda done, total: seen.append(done))
    assert seen[0] > 2_000
    equal(found, scan("zip", pets_zip, entries))


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_what_is_behind_a_url_is_read_by_every_node(
    form: str, connected: str, registry: Registry, tmp_path: Path
) -> None:
    folder = class_folders(tmp_path / "photos", per_class=4)
    (folder / "red" / "broken.jpg").write_bytes(b"no image")
    source = folder
    if form == "zip":
        source = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", folder))
    url = f"file://{source}"
    with open_dataset(source, name="here") as here:
        expected = here.index["phash"].to_pylist()
    with open_dataset(url, name="there", scanner=RayScanner(connected)) as there:
        assert there.index["phash"].to_pylist() == expected
    engine = gate(registry.folder(tiny_model(tmp_path / "model", registry)))
    with offline.Inputs([url, f"file://{folder}/red/000.jpg"]) as inputs:
        found = list(scale.predict(engine, inputs, batch=5))
        same(found, list(offline.predict(engine, inputs, batch=5)))


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:1", "cannot be used"),
        ("ray://127.0.0.1:10001", "is no address"),
        ("nowhere", "is no address"),
        ("127.0.0.1:99999", "cannot be used"),
    ],
)
def test_a_cluster_that_is_not_there_is_refused(address: str, told: str) -> None:
    with pytest.raises(BadArgument, match=told), scale.connect(address):
        pass


@pytest.mark.parametrize("command", [["eda"], ["predict"], ["data", "add"], ["train"]])
def test_without_ray_the_extra_is_named(command: list[str], tmp_path: Path) -> None:
    done = without("ray", *command, tmp_path, "--engine", "ray")
    assert done.returncode == 1
    assert "imgcls[scale]" in done.stderr


def test_an_address_without_ray_is_refused(tmp_path: Path) -> None:
    result = imgcls("eda", tmp_path, "--address", "x:1")
    assert result.exit_code == 2
    assert "--engine ray" in result.output


def test_chunks_are_whole_batches_across_inputs(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "photos", per_class=5)
    paths = [str(folder), str(folder / "red"), str(folder / "red" / "000.jpg")]
    with offline.Inputs(paths) as inputs:
        chunks = list(predicting._chunks(inputs, 4))
        sizes = [sum(len(part) for part in chunk) for chunk in chunks]
        names = [name for chunk in chunks for part in chunk for name in part.names]
        assert sizes == [4] * 5 + [1]
        assert names == [name for name, _ in inputs]


def test_the_errors_of_chunks_are_ours(connected: str, tmp_path: Path) -> None:
    from imgcls.scale.chunks import mapped

    with pytest.raises(BadArgument, match="Nothing to predict"):
        list(mapped(offline.Inputs, [["/nowhere/at/all"]]))
