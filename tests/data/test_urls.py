"""URLs: what lies behind one is the same dataset as on this machine, read where it lies."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

fsspec = pytest.importorskip("fsspec")

from imgcls import offline  # noqa: E402
from imgcls.data import Dataset, DatasetStore, open_dataset, urls  # noqa: E402
from imgcls.data.url_reader import UrlReader  # noqa: E402
from imgcls.errors import (  # noqa: E402
    BadArchive,
    BadArgument,
    BadDataset,
    BrokenImage,
    Conflict,
    DatasetNotFound,
    StorageUnavailable,
)
from tests.commands import without  # noqa: E402

MEASURED = ("path", "label", "content_hash", "phash", "width", "bytes", "sum_r", "split")


@pytest.fixture(autouse=True)
def memory() -> Iterator[Any]:
    """The file system behind `memory://`, empty."""
    files = fsspec.filesystem("memory")
    yield files
    for path in files.ls("/", detail=False):
        files.rm(path, recursive=True)


def put(memory: Any, source: Path, target: str) -> str:
    """A file or folder as it is; returns its URL."""
    paths = [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]
    for path in paths:
        inside = "" if path == source else f"/{path.relative_to(source)}"
        memory.pipe_file(f"/{target}{inside}", path.read_bytes())
    return f"memory://{target}"


def same(found: Dataset, expected: Dataset) -> None:
    for column in MEASURED:
        assert found.index[column].equals(expected.index[column]), column
    assert found.tag.partition(":")[2] == expected.tag.partition(":")[2]
    rows = range(0, len(expected), 7)
    assert [found.read(row) for row in rows] == [expected.read(row) for row in rows]


@pytest.mark.parametrize("kind", ["folder", "zip", "stored zip", "tar", "tar.gz"])
@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_a_url_is_the_dataset_that_is_behind_it(
    kind: str, protocol: str, pets: Any, folder_of: Any, zip_of: Any, tar_of: Any, memory: Any
) -> None:
    source = {
        "folder": lambda: folder_of(pets),
        "zip": lambda: zip_of(pets),
        "stored zip": lambda: zip_of(pets, method=0),
        "tar": lambda: tar_of(pets),
        "tar.gz": lambda: tar_of(pets, "pets.tar.gz", "w:gz"),
    }[kind]()
    url = put(memory, source, source.name) if protocol == "memory" else f"file://{source}"
    with open_dataset(source, name="here") as here, open_dataset(url, name="there") as there:
        same(there, here)
        again = pickle.loads(pickle.dumps(there))  # noqa: S301
        same(again, here)
        with DatasetStore().open("there") as stored:
            same(stored, here)


def test_a_folder_behind_a_url_has_no_limits_of_an_archive(
    pets: Any, folder_of: Any, memory: Any, limit: Any
) -> None:
    limit(max_archive_files=5)
    with open_dataset(put(memory, folder_of(pets), "pets")) as dataset:
        assert len(dataset) == len(pets)


def test_a_large_directory_of_a_zip_is_fetched_whole(
    pets: Any, zip_of: Any, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "_BLOCK", 64)
    source = zip_of(pets)
    with open_dataset(source) as here, open_dataset(put(memory, source, "p.zip")) as there:
        same(there, here)


def test_only_the_images_that_are_asked_for_travel(
    pets: Any, zip_of: Any, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = zip_of(pets)
    with open_dataset(put(memory, source, "p.zip")) as dataset:
        asked: list[int] = []
        get = type(memory).cat_file

        def counted(self: Any, path: str, start: Any = None, end: Any = None) -> bytes:
            asked.append(end - start)
            return get(self, path, start=start, end=end)  # type: ignore[no-any-return]

        monkeypatch.setattr(type(memory), "cat_file", counted)
        dataset.read(3)
    assert len(asked) == 1
    assert asked[0] < source.stat().st_size / 10


def test_what_has_changed_behind_a_url_is_another_version(
    pets: Any, folder_of: Any, memory: Any
) -> None:
    url = put(memory, folder_of(pets), "pets")
    first = open_dataset(url).tag
    assert open_dataset(url).tag == first
    memory.rm("/pets/cat/00.jpg")
    with pytest.raises(BadDataset, match="has changed"):
        DatasetStore().open(first)
    assert open_dataset(url).tag != first
    memory.rm("/pets", recursive=True)
    with pytest.raises(BadDataset, match="is gone"):
        DatasetStore().open(first)


@pytest.mark.parametrize(
    ("url", "error", "told"),
    [
        ("memory://nothing/here", BadDataset, "memory://nothing/here"),
        ("nosuch://bucket/pets", BadDataset, "nosuch"),
        ("s3://bucket/pets", Conflict, "s3fs"),
        ("http://127.0.0.1:9/pets.zip", (Conflict, StorageUnavailable), "127.0.0.1:9.* cannot be"),
        ("memory://rows.csv", BadArgument, "--table"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused(url: str, error: Any, told: str) -> None:
    with pytest.raises(error, match=told):
        open_dataset(url)


def test_what_is_no_archive_is_refused_by_its_own_name(memory: Any) -> None:
    memory.pipe_file("/notes.zip", b"hello" * 1000)
    with pytest.raises(BadArchive, match=r"notes\.zip"):
        open_dataset("memory://notes.zip")
    memory.pipe_file("/end.zip", b"PK\x05\x06" + b"\xff" * 18)
    with pytest.raises(BadArchive):
        open_dataset("memory://end.zip")


def test_a_storage_that_does_not_answer_makes_no_broken_images(
    pets: Any, folder_of: Any, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgcls.data.url_reader._PAUSE", 0.0)
    url = put(memory, folder_of(pets), "pets")
    failures = [OSError("reset")] * 2
    get = type(memory).cat_file

    def flaky(self: Any, path: str, start: Any = None, end: Any = None) -> bytes:
        if failures:
            raise failures.pop()
        return get(self, path, start=start, end=end)  # type: ignore[no-any-return]

    monkeypatch.setattr(type(memory), "cat_file", flaky)
    reader = UrlReader("folder", urls.Url(url))
    assert reader.read(0, 0, 0, 0, 0, b"cat/00.jpg") == pets["cat/00.jpg"]
    with pytest.raises(BrokenImage):
        reader.read(0, 0, 0, 0, 0, b"cat/gone.jpg")
    failures += [OSError("reset")] * 1000
    with pytest.raises(StorageUnavailable):
        open_dataset(url)


def test_inputs_of_predict_may_be_urls(pets: Any, folder_of: Any, zip_of: Any, memory: Any) -> None:
    folder, archive = put(memory, folder_of(pets), "pets"), put(memory, zip_of(pets), "pets.zip")
    one = f"{folder}/dog/03.jpg"
    with offline.Inputs([folder, archive, one]) as inputs:
        assert inputs.count() == 41
        found = [(name, read()) for name, read in inputs]
    assert dict(found[:20]) == {f"{folder}/{name}": data for name, data in pets.items()}
    assert dict(found[20:40]) == {f"{archive}/{name}": data for name, data in pets.items()}
    assert found[40] == (one, pets["dog/03.jpg"])


def test_a_server_takes_no_url_for_a_dataset() -> None:
    for text in ("memory://pets", "http://169.254.169.254/latest", "file:///etc"):
        with pytest.raises(DatasetNotFound):
            DatasetStore().open(text)


def test_without_fsspec_the_extra_is_named() -> None:
    done = without("fsspec", "eda", "s3://bucket/pets")
    assert done.returncode == 1
    assert "imgcls[scale]" in done.stderr


def test_paths_are_no_urls(tmp_path: Path) -> None:
    for text in ("pets.zip", "/data/pets", "c:/pets", "pets:0123456789ab", "./a://b"):
        assert urls.place(text) == Path(os.path.abspath(text))
    assert str(urls.place("s3://bucket/pets/")) == "s3://bucket/pets"


def test_no_path_at_all_is_not_the_folder_around() -> None:
    with pytest.raises(BadArgument, match="The path is empty"):
        urls.place("")
