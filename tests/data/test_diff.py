"""What changed between two versions, and removing one."""

import shutil

import pytest

from imgcls.data import DatasetStore
from imgcls.data import store as store_module
from imgcls.data.diff import DatasetDiff, diff_versions
from imgcls.errors import BadDataset, DatasetInUse, DatasetNotFound


@pytest.fixture
def split(picture):
    """Two classes, three splits that the folders state."""
    return {
        f"{part}/{label}/{n}.jpg": picture(1000 * s + 100 * k + n)
        for s, part in enumerate(("train", "val", "test"))
        for k, label in enumerate(("cat", "dog"))
        for n in range(4)
    }


@pytest.fixture
def diff(zip_of):
    def compare(before, after) -> DatasetDiff:
        store = DatasetStore()
        old = store.add(zip_of(before, "old.zip"), name="pets").tag
        new = store.add(zip_of(after, "new.zip"), name="pets").tag
        return diff_versions(store, old, new)

    return compare


def moved(files, path, to):
    return {to if name == path else name: data for name, data in files.items()}


def kinds(found):
    named = found.model_dump()
    return {key: named[key]["total"] for key in named if isinstance(named[key], dict)}


def nothing(**but):
    return dict.fromkeys(("came", "went", "relabelled", "moved", "renamed", "replaced"), 0) | but


def test_nothing_has_changed(split, diff):
    found = diff(split, split)
    assert found.old == found.new
    assert (found.same, kinds(found)) == (24, nothing())


def test_a_store_that_may_only_be_read_is_compared(pets, zip_of):
    store = DatasetStore()
    tag = store.add(zip_of(pets)).tag
    (store.root / ".lock").unlink()
    (store.root / ".lock").mkdir()  # what nobody can open for writing, root included
    assert diff_versions(store, tag, tag).same == 20


def test_an_index_that_is_replaced_meanwhile_is_read_as_it_is_then(pets, zip_of, monkeypatch):
    store = DatasetStore()
    tag = store.add(zip_of(pets), move=True).tag
    read, calls = store_module.read_index, []

    def replaced(path):
        if not calls:
            calls.append(path)
            store.add(zip_of(pets), move=True)
        return read(path)

    monkeypatch.setattr(store_module, "read_index", replaced)
    assert len(store.index(tag)) == 20


def test_images_that_came_and_went_are_named(split, diff, picture):
    after = {path: data for path, data in split.items() if path != "train/cat/0.jpg"}
    found = diff(split, after | {"test/dog/new.jpg": picture(9)})
    assert (found.same, kinds(found)) == (23, nothing(came=1, went=1))
    assert [tuple(image.model_dump().values()) for image in found.came.images] == [
        ("test/dog/new.jpg", "dog", "test")
    ]
    assert [image.path for image in found.went.images] == ["train/cat/0.jpg"]


def test_an_image_in_another_folder_is_the_same_image(split, diff):
    found = diff(split, moved(split, "train/cat/0.jpg", "test/dog/x.jpg"))
    assert (found.same, kinds(found)) == (23, nothing(relabelled=1, moved=1, renamed=1))
    assert found.relabelled.images[0].model_dump() == {
        "path": "test/dog/x.jpg", "was": "cat", "now": "dog",
    }  # fmt: skip
    assert (found.moved.images[0].was, found.moved.images[0].now) == ("train", "test")
    assert found.renamed.images[0].was == "train/cat/0.jpg"


def test_another_picture_under_the_same_name_is_no_newcomer(split, diff, picture):
    found = diff(split, split | {"train/cat/0.jpg": picture(9)})
    assert (found.same, kinds(found)) == (23, nothing(replaced=1))
    change = found.replaced.images[0]
    assert change.path == "train/cat/0.jpg"
    assert change.was != change.now
    assert len(change.was) == len(change.now) == 40


def test_of_two_copies_the_one_that_stayed_is_not_the_one_that_went(split, diff):
    twice = split | {"train/dog/copy.jpg": split["train/cat/0.jpg"]}
    found = diff(twice, split)
    assert kinds(found) == nothing(went=1)
    assert found.went.images[0].path == "train/dog/copy.jpg"
    assert kinds(diff(split, twice)) == nothing(came=1)


def test_files_that_cannot_be_read_are_compared_too(split, diff, picture):
    broken = split | {"train/cat/bad.jpg": b"x"}
    assert kinds(diff(broken, broken | {"train/cat/worse.jpg": b""})) == nothing(came=1)
    assert kinds(diff(broken, broken | {"train/cat/bad.jpg": picture(9)})) == nothing(replaced=1)


def test_targets_are_compared_where_there_are_no_labels(tmp_path, folder_of, pets):
    root = folder_of(pets)
    store = DatasetStore()
    tags = []
    for first in (1, 5):
        table = tmp_path / "scores.csv"
        lines = [f"{path},{first if n == 0 else n}" for n, path in enumerate(sorted(pets))]
        table.write_text("\n".join(["path,target", *lines]))
        tags.append(store.add(root, table=table).tag)
    found = diff_versions(store, *tags)
    assert found.relabelled.total == 1
    assert (found.relabelled.images[0].was, found.relabelled.images[0].now) == (1.0, 5.0)


def test_the_images_of_an_old_version_need_not_be_there(split, folder_of, picture):
    store = DatasetStore()
    root = folder_of(split)
    old = store.add(root).tag
    (root / "train/cat/0.jpg").unlink()
    new = store.add(root).tag
    with pytest.raises(BadDataset, match="has changed since"):
        store.open(old)
    assert kinds(diff_versions(store, old, new)) == nothing(went=1)
    shutil.rmtree(root)
    assert kinds(diff_versions(store, new, old)) == nothing(came=1)


def test_lists_are_capped_and_counts_are_not(split, diff, monkeypatch):
    from imgcls.data import diff as module

    monkeypatch.setattr(module, "LISTED", 2)
    after = {path: data for path, data in split.items() if not path.startswith("test/cat")}
    found = diff(split, after)
    assert (found.went.total, len(found.went.images)) == (4, 2)


def test_only_what_the_store_owns_is_deleted(pets, zip_of):
    store = DatasetStore()
    path = zip_of(pets)
    kept = store.add(path, name="kept").tag
    uploaded = store.add(zip_of(pets, "b.zip"), name="sent", move=True).tag
    assert (store.source(kept), store.source(uploaded)) == (str(path), None)
    assert store.remove("kept") == kept
    assert path.exists()
    with store.open(uploaded) as opened:
        assert store.remove(uploaded) == uploaded
        assert opened.read(0) == pets["cat/00.jpg"]
    assert store.list() == []
    assert [left.name for left in store.root.iterdir()] == [".lock"]
    with pytest.raises(DatasetNotFound):
        store.remove(kept)


def test_one_version_goes_and_the_others_stay(pets, zip_of, picture):
    store = DatasetStore()
    old = store.add(zip_of(pets, "a.zip"), name="pets").tag
    new = store.add(zip_of(pets | {"cat/x.jpg": picture(999)}, "b.zip"), name="pets").tag
    assert store.remove("pets") == new
    assert [summary.tag for summary in store.list()] == [old]
    assert store.add(zip_of(pets, "a.zip"), name="pets").tag == old


def test_what_another_dataset_reads_is_kept(pets, zip_of):
    store = DatasetStore()
    first = store.add(zip_of(pets), name="first", move=True).tag
    archive = next(store.root.glob("first/*/archive-*"))
    second = store.add(archive, name="second").tag
    with pytest.raises(DatasetInUse, match=rf"{second} reads the images of {first}"):
        store.remove(first)
    store.remove(second)
    assert store.remove(first) == first
