"""Which folder is the label, which the split, which is neither."""

import pytest

from imgcls.console import clean
from imgcls.data import open_dataset
from imgcls.data.entries import (
    are_plain_images,
    is_image,
    is_litter,
    is_wanted,
    litter_among,
    safe_name,
    wanted_among,
)
from imgcls.data.layout import arrange
from imgcls.errors import BadDataset


def read(*names):
    layout = arrange(list(names))
    return [
        (path, label, split)
        for path, label, split in zip(layout.paths, layout.labels, layout.given, strict=True)
    ]


def test_a_folder_is_a_class():
    assert read("cat/1.jpg", "dog/2.jpg") == [
        ("cat/1.jpg", "cat", None),
        ("dog/2.jpg", "dog", None),
    ]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Valid", "VAL"])
def test_split_folders_have_many_spellings(name):
    found = read("Train/cat/1.jpg", "Train/dog/1.jpg", f"{name}/cat/1.jpg", "TEST/dog/1.jpg")
    assert [split for *_, split in found] == ["train", "train", "val", "test"]


@pytest.mark.parametrize("top", ["mydata", "a/b", "archive/mydata"])
def test_wrapping_folders_are_looked_through(top):
    assert read(f"{top}/train/cat/1.jpg", f"{top}/test/dog/1.jpg") == [
        ("train/cat/1.jpg", "cat", "train"),
        ("test/dog/1.jpg", "dog", "test"),
    ]
    assert read(f"{top}/cat/1.jpg", f"{top}/dog/1.jpg")[0] == ("cat/1.jpg", "cat", None)


def test_a_train_folder_alone_is_no_wrapper():
    assert read("train/cat/1.jpg", "train/dog/1.jpg")[0] == ("train/cat/1.jpg", "cat", "train")


def test_deeper_folders_belong_to_the_class_above():
    assert read("cat/tabby/1.jpg", "dog/2.jpg")[0] == ("cat/tabby/1.jpg", "cat", None)


def test_a_class_may_be_called_train():
    assert [label for _, label, _ in read("bus/1.jpg", "train/1.jpg")] == ["bus", "train"]


def test_a_few_images_beside_the_classes_are_left_out_and_counted():
    layout = arrange(["cat/1.jpg", "dog/1.jpg", "preview.jpg"])
    assert (layout.labels, layout.loose) == (["cat", "dog"], 1)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "no images"),
        (["1.jpg", "2.jpg", "3.jpg"], "in no class folder"),
        (["train/1.jpg", "test/2.jpg"], "in no class folder"),
        (["cat/1.jpg", "cat/2.jpg"], "Only one class"),
        (["test/cat/1.jpg", "test/dog/1.jpg", "val/dog/1.jpg"], "no train folder"),
        (["train/cat/1.jpg", "extra/dog/1.jpg"], "'extra' stands beside 'train'"),
        (["cat/1.jpg", "d\x07g/1.jpg"], "cannot be a class name"),
        (["cat/1.jpg", f"{'d' * 201}/1.jpg"], "cannot be a class name"),
        (["cat/1.jpg", " /1.jpg"], "cannot be a class name"),
        (["cat/1.jpg", "d\u200eg/1.jpg"], "cannot be a class name"),
        (["cat/1.jpg", "\u200d/1.jpg"], "cannot be a class name"),
    ],
)
def test_other_layouts_are_refused_in_a_sentence(names, words):
    with pytest.raises(BadDataset, match=words):
        arrange(names)


def test_joiners_within_words_and_emoji_are_part_of_a_class_name():
    persian, emoji = "\u0645\u06cc\u200c\u0631\u0648\u0645", "\U0001f468\u200d\U0001f33e"
    found = read(f"{persian}/1.jpg", f"{emoji}/1.jpg")
    assert [label for _, label, _ in found] == [persian, emoji]
    assert clean(persian + emoji) == persian + emoji


def test_litter_and_other_files_are_passed_over(pets, folder_of, zip_of, tar_of):
    litter = {
        "__MACOSX/cat/._00.jpg": b"x", ".DS_Store": b"x", "cat/.hidden.jpg": b"x",
        ".git/cat/1.jpg": b"x", "cat/Thumbs.db": b"x",
    }  # fmt: skip
    notes = {"README.md": b"hello", "cat/labels.csv": b"1"}
    for source in (folder_of(pets | litter | notes), zip_of(pets | litter | notes)):
        with open_dataset(source) as dataset:
            assert dataset.index["path"].to_pylist() == sorted(pets)
    with pytest.raises(BadDataset, match="no images, only 2 other files"):
        open_dataset(tar_of(litter | notes))


@pytest.mark.parametrize(
    ("name", "litter", "wanted"),
    [
        ("cat/1.jpg", False, True), ("cat/1.JPEG", False, True), ("cat/1", False, False),
        ("1.jpg", False, True), (".1.jpg", True, True), ("cat/.1.jpg", True, True),
        ("__MACOSX/cat/1.jpg", True, True), ("my__MACOSX/1.jpg", False, True),
        ("cat/Thumbs.db", True, False), ("cat/DESKTOP.INI", True, False), ("a.db", False, False),
        ("cat/metadata.csv", False, True), ("cat/my_metadata.csv", False, False),
        ("cat/\n.jpg", False, True), ("ca.t/1", False, False), ("", False, False),
    ],
)  # fmt: skip
def test_what_a_name_is_depends_on_no_other_name(name, litter, wanted):
    assert (is_litter(name), is_wanted(name)) == (litter, wanted)
    for others in ([], ["dog/1.png"], [".x", "a/b.txt"]):
        assert litter_among([*others, name])[-1] == litter
        assert wanted_among([*others, name])[-1] == wanted


@pytest.mark.parametrize("name", ["1.jpg", "cat/2.jpg", "cat/\u00e4 b.jpg", "c at/a.b/3.jpg"])
def test_plain_names_are_told_by_one_look_at_all(name):
    assert are_plain_images(["cat/0.jpg", name, "dog/0.jpg"])
    assert (safe_name(name), is_image(name), is_litter(name)) == (name, True, False)


@pytest.mark.parametrize(
    "name",
    [
        ".jpg", "cat/.jpg", "/1.jpg", "./1.jpg", "a/./1.jpg", "a//1.jpg", "../1.jpg", "a/../1.jpg",
        "C:/1.jpg", "a:1.jpg", "__MACOSX/1.jpg", "a/__MACOSX/1.jpg", "1.jpg\n2.jpg", "\n.jpg",
        "1.png", "1.JPG", "a/", "a.jpg/", "", "jpg", "cat/Thumbs.db", "metadata.csv", "a/..jpg",
    ],
)  # fmt: skip
def test_a_name_that_asks_for_more_is_looked_at_by_itself(name):
    for names in (["cat/0.jpg", name], [name, "cat/0.jpg"], ["cat/0.jpg", name, "dog/0.jpg"]):
        assert not are_plain_images(names)
    assert not are_plain_images([])
