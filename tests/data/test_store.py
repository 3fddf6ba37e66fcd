"""DatasetStore: what is remembered, what is refused, what survives."""

import errno
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from imgcls.data import DatasetStore, adding, open_dataset
from imgcls.data import scan as scan_module
from imgcls.data import store as store_module
from imgcls.errors import BadArchive, BadArgument, BadDataset, DatasetNotFound


@pytest.fixture
def counted(monkeypatch):
    """How many sources were indexed."""
    calls = []
    index = store_module.index_source

    def count(source, *args):
        calls.append(source.path)
        return index(source, *args)

    monkeypatch.setattr(store_module, "index_source", count)
    return calls


def test_an_empty_store_is_normal(home):
    assert DatasetStore().list() == []
    with pytest.raises(DatasetNotFound, match="the store is empty"):
        DatasetStore().get("pets")
    assert not home.exists()


@pytest.mark.parametrize("kind", ["folder_of", "zip_of", "tar_of"])
def test_an_unchanged_source_is_indexed_once(pets, kind, request, counted):
    source = request.getfixturevalue(kind)(pets)
    first = open_dataset(source)
    assert open_dataset(str(source), seed=4).tag == first.tag
    assert len(counted) == 1


@pytest.mark.parametrize("kind", ["folder_of", "zip_of", "tar_of"])
def test_a_changed_source_is_refused_by_tag_and_indexed_anew_by_path(
    pets, kind, request, counted, picture
):
    write = request.getfixturevalue(kind)
    first = open_dataset(write(pets))
    source = write(pets | {"cat/new.jpg": picture(999)})
    with pytest.raises(BadDataset, match="has changed since"):
        DatasetStore().open(first.tag)
    second = open_dataset(source)
    assert second.tag != first.tag
    assert len(second) == 21
    assert len(counted) == 2
    assert open_dataset("pets").tag == second.tag


def test_a_source_that_vanished_is_named(pets, zip_of):
    path = zip_of(pets)
    tag = DatasetStore().add(path).tag
    path.unlink()
    with pytest.raises(BadDataset, match=r"is gone from .*add the dataset again"):
        DatasetStore().open(tag)
    assert DatasetStore().get(tag).images == 20


@pytest.mark.parametrize("name", ["pets.zip", "pets.tar", "pets.tgz"])
def test_an_upload_is_moved_into_the_store(pets, zip_of, tar_of, name):
    path = (
        zip_of(pets) if name.endswith("zip") else tar_of(pets, name, "w:gz" if "g" in name else "w")
    )
    store = DatasetStore()
    summary = store.add(path, name="My Pets!", move=True)
    assert not path.exists()
    assert summary.tag.startswith("my-pets:")
    with store.open(summary.tag) as dataset:
        assert dataset.read(0) == pets["cat/00.jpg"]
        assert dataset.path.is_relative_to(store.root)


def test_the_same_content_uploaded_again_replaces_the_old_archive(pets, zip_of, tar_of):
    store = DatasetStore()
    first = store.add(zip_of(pets), move=True)
    opened = store.open(first.tag)
    second = store.add(tar_of(pets), move=True)
    assert (second.tag, second.source) == (first.tag, "tar")
    assert len(store.list()) == 1
    folder = store.root / second.tag.replace(":", "/")
    assert len(list(folder.iterdir())) == 3
    assert opened.read(0) == store.open(second.tag).read(0) == pets["cat/00.jpg"]


def test_an_uploaded_archive_outlives_the_same_content_added_by_path(pets, zip_of, counted):
    store = DatasetStore()
    tag = store.add(zip_of(pets), move=True).tag
    path = zip_of(pets)
    assert store.add(path).tag == tag
    assert open_dataset(path).read(0) == pets["cat/00.jpg"]
    assert len(counted) == 2
    path.unlink()
    assert store.open(tag).read(0) == pets["cat/00.jpg"]


def test_the_first_of_two_places_of_the_same_content_stays_while_it_holds(pets, zip_of, counted):
    store = DatasetStore()
    first, second = zip_of(pets, "a.zip"), zip_of(pets, "b.zip")
    tag = store.add(first, name="pets").tag
    assert open_dataset(f"file://{second}", name="pets").path == first
    assert open_dataset(second, name="pets").path == first
    assert open_dataset(second, name="pets").path == first
    assert len(counted) == 3
    first.unlink()
    assert open_dataset(second, name="pets").path == second
    assert store.open(tag).read(0) == pets["cat/00.jpg"]


def test_a_refused_upload_stays_where_it_is_and_leaves_nothing(pets, tmp_path, home):
    path = tmp_path / "a.zip"
    path.write_bytes(b"nonsense")
    with pytest.raises(BadArchive):
        DatasetStore().add(path, move=True)
    assert path.exists()
    assert [path.name for path in (home / "datasets").iterdir() if path.name != ".lock"] == []


@pytest.mark.parametrize(("module", "name"), [(shutil, "move"), (os, "replace")])
def test_an_upload_that_a_full_disk_ends_stays_where_it_is_and_leaves_nothing(
    pets, zip_of, monkeypatch, module, name
):
    path, store = zip_of(pets), DatasetStore()
    replace = os.replace

    def full(source, target):
        if name == "move":
            shutil.copyfile(source, target)  # some of it has been written
        elif os.path.basename(source) != "dataset.json":
            return replace(source, target)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module, name, full)
        with pytest.raises(OSError, match="No space"):
            store.add(path, move=True)
    assert path.exists()
    assert [path.name for path in store.root.iterdir()] == [".lock"]
    tag = store.add(path, move=True).tag
    assert store.open(tag).read(0) == pets["cat/00.jpg"]


def test_a_folder_cannot_be_moved(pets, folder_of):
    with pytest.raises(BadArgument, match="pack the folder"):
        DatasetStore().add(folder_of(pets), move=True)


def test_a_compressed_tar_is_unpacked_once_and_outlives_its_source(pets, tar_of):
    path = tar_of(pets, "pets.tar.gz", "w:gz")
    tag = open_dataset(path).tag
    path.unlink()
    assert open_dataset(tag).read(0) == pets["cat/00.jpg"]


def test_the_list_is_newest_first_and_skips_what_is_broken(pets, zip_of, picture):
    store = DatasetStore()
    old = store.add(zip_of(pets, "a.zip"))
    new = store.add(zip_of(pets | {"cat/x.jpg": picture(999)}, "b.zip"))
    lost = store.add(zip_of(pets, "c.zip"))
    (store.root / lost.tag.replace(":", "/") / "dataset.json").write_text("{")
    (store.root / "d" / "0123456789ab").mkdir(parents=True)
    (store.root / "stray").write_text("x")
    work = store.root / ".tmp-1" / "0123456789ab"
    shutil.copytree(store.root / old.tag.replace(":", "/"), work)
    assert [summary.tag for summary in store.list()] == [new.tag, old.tag]


def test_a_name_alone_is_the_latest_version(pets, zip_of, picture):
    store = DatasetStore()
    first = store.add(zip_of(pets, "a.zip"), name="pets")
    second = store.add(zip_of(pets | {"cat/x.jpg": picture(999)}, "b.zip"), name="pets")
    assert store.get("pets") == store.get("pets:latest") == second
    assert store.get(first.tag) == first


@pytest.mark.parametrize(
    "tag", ["dogs", "pets:000000000000", "../x", "pets:../..", "", "*", ".tmp"]
)
def test_a_tag_that_is_not_there_is_answered_with_what_is(pets, zip_of, tag):
    known = DatasetStore().add(zip_of(pets)).tag
    with pytest.raises(DatasetNotFound, match=known) as caught:
        DatasetStore().open(tag)
    assert caught.value.detail == [known]


def test_the_summary_says_what_was_found(pets, zip_of):
    files = pets | {"cat/bad.jpg": b"x", "notes.txt": b"x", "loose.jpg": pets["cat/00.jpg"]}
    summary = DatasetStore().add(zip_of(files))
    assert summary.labels == ["cat", "dog"]
    assert (summary.images, summary.unreadable, summary.ignored) == (20, 1, 2)
    assert summary.splits == {"train": 14, "val": 2, "test": 4}
    assert summary.bytes == sum(map(len, pets.values())) + 1
    assert summary.source == "zip"


def test_a_damaged_or_foreign_index_is_refused(pets, zip_of):
    store = DatasetStore()
    tag = store.add(zip_of(pets)).tag
    index = next(store.root.glob("pets/*/index-*.parquet"))
    index.write_bytes(b"PAR1nonsense")
    with pytest.raises(BadDataset, match="damaged; add the dataset again"):
        store.open(tag)
    index.unlink()
    with pytest.raises(BadDataset, match="is gone; add the dataset again"):
        store.open(tag)
    entry = next(store.root.glob("pets/*/dataset.json"))
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"schema_version": 2}))
    with pytest.raises(BadDataset, match=r"dataset\.json is damaged or of another version"):
        store.open(tag)


def test_an_archive_that_changes_while_it_is_indexed_is_refused(pets, zip_of):
    path = zip_of(pets)

    def touch(done, total):
        os.utime(path, ns=(1, 1))

    with pytest.raises(BadDataset, match="changed while it was read"):
        DatasetStore().add(path, progress=touch)


@pytest.mark.parametrize("gone", [False, True])
def test_a_pass_over_an_archive_ends_soon_after_that_has_changed(
    pets, zip_of, home, tmp_path, monkeypatch, gone
):
    monkeypatch.setattr(adding, "_LOOK", 0.0)
    monkeypatch.setattr(scan_module, "_CHUNK_FILES", (3, 3))
    monkeypatch.setattr(scan_module, "_KEEP_FILES", 1)
    monkeypatch.setattr(scan_module, "usable_cores", lambda: 1)
    path, seen = zip_of(pets), []

    def progress(done, total):
        seen.append(done)
        if done == 6:
            path.rename(tmp_path / "away") if gone else os.utime(path)

    with pytest.raises(BadDataset, match="was taken away" if gone else "changed while it was read"):
        DatasetStore().add(path, progress=progress)
    assert seen[-1] < 20
    kept = [path.name[:6] for path in (home / "datasets").iterdir()]
    assert kept == ([".pass-"] if gone else [])
    if gone:  # a file system that was away for a moment
        (tmp_path / "away").rename(path)
        seen.clear()
        DatasetStore().add(path, progress=lambda done, total: seen.append(done))
        assert seen[0] == 9


@pytest.mark.parametrize(
    ("file", "name"),
    [("Köln (2).zip", "koln-2"), ("pets.tar.gz", "pets"), ("___.zip", "dataset"),
     (f"{'x' * 90}.tar", "x" * 63)],
)  # fmt: skip
def test_names_become_tags_that_bentoml_would_accept(pets, zip_of, tar_of, file, name):
    path = zip_of(pets, file) if file.endswith("zip") else tar_of(pets, file)
    assert DatasetStore().add(path).tag.split(":")[0] == name


def test_the_store_may_live_anywhere(pets, zip_of, tmp_path):
    store = DatasetStore(tmp_path / "elsewhere")
    store.add(zip_of(pets))
    assert DatasetStore().list() == []
    assert len(DatasetStore(tmp_path / "elsewhere").list()) == 1


def test_what_a_killed_process_left_behind_is_removed_a_day_later(pets, zip_of):
    store = DatasetStore()
    for name, age in (("old", 2 * 86_400), ("new", 60)):
        (store.root / f".tmp-{name}").mkdir(parents=True)
        then = time.time() - age
        os.utime(store.root / f".tmp-{name}", (then, then))
    store.add(zip_of(pets))
    assert [path.name for path in store.root.glob(".tmp-*")] == [".tmp-new"]


def test_a_pass_of_days_keeps_its_folder(pets, zip_of):
    store = DatasetStore()
    other = zip_of(pets, "other.zip")

    def days(done, total):
        [work] = store.root.glob(".tmp-*")
        os.utime(work, ns=(1, 1))
        store.add(other)

    assert store.add(zip_of(pets), progress=days).images == 20
    assert list(store.root.glob(".tmp-*")) == []


def test_adding_the_same_content_at_once_leaves_one_whole_dataset(pets, zip_of):
    paths = [zip_of(pets, f"{n}.zip") for n in range(8)]
    store = DatasetStore()
    with ThreadPoolExecutor(8) as pool:
        tags = {s.tag for s in pool.map(lambda path: store.add(path, name="pets"), paths)}
    assert len(tags) == 1
    assert len(store.list()) == 1
    with store.open(tags.pop()) as dataset:
        assert dataset.read(0) == pets["cat/00.jpg"]
