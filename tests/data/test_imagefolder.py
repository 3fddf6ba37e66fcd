"""Metadata beside the images says labels and targets, in every kind of source."""

import json

import pytest

from imgcls.data import Labelling, open_dataset
from imgcls.data.store import DatasetStore
from imgcls.errors import BadArgument, BadDataset


@pytest.fixture
def flat(picture):
    """Twelve images of two classes in folders of splits, with metadata in each."""
    files = {}
    for k, split in enumerate(("train", "validation", "test")):
        lines = ["file_name,label,rate"]
        for n in range(4):
            files[f"{split}/{n}.jpg"] = picture(10 * k + n)
            lines.append(f"{n}.jpg,{('cat', 'dog')[n % 2]},{k + n / 10}")
        files[f"{split}/metadata.csv"] = "\n".join(lines).encode()
    return files


@pytest.fixture(params=["folder", "zip", "tar", "tar.gz"])
def packed(request, folder_of, zip_of, tar_of):
    kind = request.param
    return {
        "folder": folder_of,
        "zip": zip_of,
        "tar": tar_of,
        "tar.gz": lambda files: tar_of(files, "pets.tar.gz", "w:gz"),
    }[kind]


def test_json_lines_end_at_line_feeds_alone(picture, folder_of):
    labels = ["cat", "dog \u2028\x85\u2029"]
    lines = [
        json.dumps({"file_name": f"{n}.jpg", "label": "ab"[n % 2], "note": labels[n % 2]},
                   ensure_ascii=False)
        for n in range(12)
    ]  # fmt: skip
    files = {f"{n}.jpg": picture(n) for n in range(12)}
    for end in ("\n", "\r\n"):
        data = (end.join(lines) + end).encode()
        with open_dataset(folder_of(files | {"metadata.jsonl": data}, f"p{len(end)}")) as dataset:
            assert dataset.labels == ["a", "b"]


def test_labels_and_splits_come_from_metadata(flat, packed):
    with open_dataset(packed(flat)) as dataset:
        assert dataset.labels == ["cat", "dog"]
        assert [len(dataset.rows(split)) for split in ("train", "val", "test")] == [4, 4, 4]
        rows = {row["path"]: row["label"] for row in dataset.index.to_pylist()}
        assert rows["train/0.jpg"] == "cat"
        assert rows["test/3.jpg"] == "dog"
        assert dataset.lineage().table == dataset.labelling.table is not None


def test_a_folder_and_an_archive_of_that_folder_are_one_version(flat, folder_of, tar_of):
    folder = open_dataset(folder_of(flat), name="pets")
    packed = {f"around/pets/{name}": data for name, data in flat.items()}
    with open_dataset(tar_of(packed), name="pets") as archive:
        assert archive.tag == folder.tag


def test_a_field_of_the_metadata_can_be_the_target(flat, zip_of):
    names = [name for name in flat if name.endswith(".csv")]
    files = flat | {name: flat[name].replace(b"label", b"kind") for name in names}
    path = zip_of(files)
    with open_dataset(path, labelling=Labelling(target="rate", where="kind==cat")) as dataset:
        assert dataset.task == "regression"
        assert sorted(dataset.targets(dataset.rows("test")).tolist()) == pytest.approx([2, 2.2])
    with pytest.raises(BadArgument, match="no field 'height'"):
        open_dataset(path, labelling=Labelling(target="height"))


def test_json_lines_say_the_same(flat, zip_of, home):
    lines = [
        {"file_name": f"{split}/{n}.jpg", "label": n % 2, "objects": {"bbox": [[1, 2]]}, "odd-1": n}
        for split in ("train", "validation", "test")
        for n in range(4)
    ]
    files = {name: data for name, data in flat.items() if name.endswith(".jpg")}
    text = "\n".join(map(json.dumps, lines))
    with open_dataset(zip_of(files | {"metadata.jsonl": text.encode()})) as dataset:
        assert dataset.labels == ["0", "1"]
        assert len(dataset.rows("val")) == 4


def test_an_unchanged_source_is_read_once_and_changed_metadata_makes_another_version(
    flat, folder_of
):
    root = folder_of(flat)
    tag = open_dataset(root).tag
    assert open_dataset(root, progress=lambda *now: pytest.fail("it was read again")).tag == tag
    assert open_dataset(tag.partition(":")[0]).labels == ["cat", "dog"]
    csv = root / "train" / "metadata.csv"
    csv.write_text(csv.read_text().replace("0.jpg,cat", "0.jpg,dog"))
    assert open_dataset(root).tag != tag
    assert len(DatasetStore().list()) == 2


def test_metadata_without_labels_leaves_them_to_the_folders(pets, zip_of):
    text = "file_name,text\n" + "\n".join(f"{name},a pet" for name in pets)
    with open_dataset(zip_of(pets | {"metadata.csv": text.encode()})) as dataset:
        assert dataset.labels == ["cat", "dog"]
        assert dataset.labelling.table is None
    other = b"when,where\n1,2\n"
    with open_dataset(zip_of(pets | {"metadata.csv": other}, "other.zip")) as dataset:
        assert len(dataset) == 20


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"file_name,label\ngone.jpg,cat\n", "not in the data"),
        (b"file_name,label\n0.jpg,cat\n0.jpg,dog\n", "twice"),
        (b"file_name,label\n0.jpg,cat,more\n", "3 values"),
        (b"file_name,label\n../0.jpg,cat\n", "not in the data"),
        (b"file_name,label\n\xff\xfe,cat\n", "UTF-8"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(flat, zip_of, text, words):
    with pytest.raises(BadDataset, match=words):
        open_dataset(zip_of(flat | {"train/metadata.csv": text}))


@pytest.mark.parametrize("text", [b"{", b"[1]", b'{"file_name": "0.jpg"}\n3', b"[" * 100_000])
def test_json_lines_that_are_none_are_refused(flat, zip_of, text):
    files = {name: data for name, data in flat.items() if name.endswith(".jpg")}
    with pytest.raises(BadDataset, match="JSON lines"):
        open_dataset(zip_of(files | {"train/metadata.jsonl": text}))
