"""Fixes: what a reviewed list does to a dataset, and every list that is refused."""

import csv
import io
import os
import zipfile
from pathlib import Path

import pytest
from pydantic import ValidationError

from imgcls.card import DatasetLineage
from imgcls.data import DatasetStore, Labelling, open_dataset
from imgcls.data.fix_list import FixRow, fix_hash, read_csv, to_csv
from imgcls.errors import BadArgument
from imgcls.findings.kept import keep


@pytest.fixture
def store():
    return DatasetStore()


@pytest.fixture
def tag(store, pets, zip_of):
    return store.add(zip_of({f"train/{k}": v for k, v in pets.items()} | given(pets))).tag


def given(pets):
    """A test split of two images."""
    return {f"test/{k[:3]}/t.jpg": pets[k] for k in ("cat/00.jpg", "dog/00.jpg")}


def row(path, action, value="", **more):
    return FixRow(path=path, action=action, value=value, **more)


def rows_of(store, tag):
    index = store.index(tag)
    return {r["path"]: (r["label"], r["split"]) for r in index.to_pylist()}


def test_each_action_does_what_it_says_and_the_old_version_stays(store, tag):
    before = rows_of(store, tag)
    fixed = store.add_fixed(
        tag,
        [
            row("train/cat/01.jpg", "drop"),
            row("train/cat/02.jpg", "relabel", "dog"),
            row("train/cat/03.jpg", "move", "test"),
            row("train/cat/04.jpg", "relabel", "horse"),
        ],
    )
    now = rows_of(store, fixed.tag)
    assert "train/cat/01.jpg" not in now
    assert now["train/cat/02.jpg"][0] == "dog"
    assert now["train/cat/03.jpg"] == ("cat", "test")
    assert fixed.labels == ["cat", "dog", "horse"]
    assert len(now) == len(before) - 1
    assert fixed.tag != tag
    assert rows_of(store, tag) == before
    assert store.get("pets").tag == fixed.tag


def test_a_merged_class_is_gone_and_its_images_are_not(store, pets, zip_of):
    tag = store.add(
        zip_of(pets | {f"cats/{n}.jpg": pets[f"cat/{n:02d}.jpg"] for n in range(3)})
    ).tag
    fixed = store.add_fixed(tag, [row("cats", "merge", "cat")])
    assert fixed.labels == ["cat", "dog"]
    assert fixed.images == 23


def test_images_of_a_fixed_version_are_read_from_the_same_archive(store, tag, pets):
    fixed = store.add_fixed(tag, [row("train/cat/01.jpg", "drop")])
    with store.open(fixed.tag) as dataset:
        at = dataset.index["path"].to_pylist().index("train/dog/05.jpg")
        assert dataset.read(at) == pets["dog/05.jpg"]


def test_an_uploaded_archive_is_shared_and_either_version_can_go(store, pets, zip_of):
    tag = store.add(zip_of(pets), move=True).tag
    fixed = store.add_fixed(tag, [row("cat/01.jpg", "drop")]).tag
    [one], [other] = (list(store.folder(t).glob("archive-*")) for t in (tag, fixed))
    assert one.samefile(other)
    store.remove(tag)
    with store.open(fixed) as dataset:
        assert dataset.read(0) == pets["cat/00.jpg"]


def test_the_hash_of_the_fixes_is_in_the_lineage_and_the_version(store, tag):
    fixes = [row("train/cat/01.jpg", "drop", reason="a", confidence=0.5)]
    first = store.add_fixed(tag, fixes)
    second = store.add_fixed(first.tag, [row("train/cat/02.jpg", "drop")])
    with store.open(first.tag) as dataset:
        assert dataset.lineage().fix == fix_hash(fixes, None)
        assert DatasetLineage.model_validate_json(dataset.lineage().model_dump_json())
    with store.open(second.tag) as dataset:
        assert dataset.lineage().fix not in (None, fix_hash(fixes, None))
    with store.open(tag) as dataset:
        assert dataset.lineage().fix is None


def test_the_applied_list_is_kept_beside_the_index(store, tag):
    fixes = [row("train/cat/01.jpg", "drop", reason="twice, they say", confidence=0.9)]
    fixed = store.add_fixed(tag, fixes)
    assert read_csv(store.folder(fixed.tag) / "fix.csv") == fixes


def test_the_same_path_added_again_is_the_unfixed_version(store, pets, folder_of):
    root = folder_of(pets)
    tag = store.add(root).tag
    store.add_fixed(tag, [row("cat/01.jpg", "drop")])
    assert store.add(root).tag == tag


def test_a_touched_or_repacked_source_leaves_what_was_fixed_as_it_is(store, pets, zip_of):
    path = zip_of(pets)
    tag = store.add(path).tag
    fixed = store.add_fixed(tag, [row("cat/01.jpg", "drop")])
    again = store.add_fixed(fixed.tag, [row("cat/02.jpg", "drop")])
    keep(tag, [])
    before = store.list()
    os.utime(path, ns=(1, 1))
    assert open_dataset(path).tag == tag
    assert store.list() == before
    assert (store.folder(tag) / "mislabelled.json").exists()
    zip_of({name: pets[name] for name in reversed(pets)}, method=zipfile.ZIP_STORED)
    assert open_dataset(path).tag == tag
    assert store.get("pets").tag == again.tag
    for version in (tag, fixed.tag, again.tag):
        with store.open(version) as dataset:
            at = dataset.index["path"].to_pylist().index("dog/05.jpg")
            assert dataset.read(at) == pets["dog/05.jpg"]
    assert store.fixes(fixed.tag) == (tag, [row("cat/01.jpg", "drop")])


def test_content_that_comes_back_is_what_the_name_means_again(store, pets, folder_of, picture):
    root = folder_of(pets)
    tag = store.add(root).tag
    (root / "cat" / "new.jpg").write_bytes(picture(999))
    assert store.add(root).tag != tag
    (root / "cat" / "new.jpg").unlink()
    os.utime(root / "cat" / "00.jpg", ns=(1, 1))
    assert store.add(root).tag == store.get("pets").tag == tag


def test_targets_are_relabelled_with_numbers(store, pets, folder_of):
    root = folder_of({f"{n:02d}_{n % 5}.jpg": data for n, data in enumerate(pets.values())})
    tag = store.add(root, labelling=Labelling(pattern="{id}_{rate}", target="rate")).tag
    fixed = store.add_fixed(tag, [row("03_3.jpg", "relabel", "7.5")])
    assert store.index(fixed.tag).filter(store.index(fixed.tag)["target"].to_numpy() == 7.5)[
        "path"
    ].to_pylist() == ["03_3.jpg"]
    with pytest.raises(BadArgument, match="no number"):
        store.add_fixed(tag, [row("03_3.jpg", "relabel", "good")])


@pytest.mark.parametrize(
    ("fixes", "says"),
    [
        ([], "no fixes"),
        ([row("train/cat/99.jpg", "drop")], "99.jpg"),
        ([row("train/cat/01.jpg", "relabel", "a\nb")], "class name"),
        ([row("train/cat/01.jpg", "relabel")], "class name"),
        ([row("train/cat/01.jpg", "move", "val")], "states itself"),
        ([row("train/cat/01.jpg", "move", "somewhere")], "states itself"),
        ([row("bird", "merge", "cat")], "no class 'bird'"),
        ([row("cat", "merge", "dog"), row("dog", "merge", "cat")], "circle"),
        (
            [row("train/cat/01.jpg", "relabel", v) for v in ("dog", "horse")],
            "two values",
        ),
    ],
)
def test_a_list_that_does_not_fit_is_refused_and_nothing_is_kept(store, tag, fixes, says):
    with pytest.raises(BadArgument, match=says):
        store.add_fixed(tag, fixes)
    assert [summary.tag for summary in store.list()] == [tag]


@pytest.mark.parametrize("action", ["drop", "move"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_list_that_empties_a_stated_split_is_refused(store, tag, split, action):
    other = {"train": "test", "test": "train"}[split]
    paths = [path for path, (_, now) in rows_of(store, tag).items() if path.startswith(split)]
    fixes = [row(path, action, other if action == "move" else "") for path in paths]
    with pytest.raises(BadArgument, match=f"no image that can be read in the split '{split}'"):
        store.add_fixed(tag, fixes)
    store.add_fixed(tag, fixes[1:])


def test_images_that_are_drawn_from_may_not_all_be_moved_away(store, pets, zip_of):
    lines = ["file_name,label,split", *(f"{path},{path[:3]}," for path in pets)]
    lines[1] += "test"
    files = pets | {"metadata.csv": "\n".join(lines).encode()}
    tag = store.add(zip_of(files)).tag
    with pytest.raises(BadArgument, match="the split 'train'"):
        store.add_fixed(tag, [row(path, "move", "test") for path in pets])


def test_a_list_survives_being_written_and_read(tmp_path: Path):
    fixes = [
        row('a,"b"\n.jpg', "relabel", "é", reason="x", confidence=0.25),
        row("c.jpg", "drop"),
    ]
    (tmp_path / "fix.csv").write_text(to_csv(fixes), encoding="utf-8")
    assert read_csv(tmp_path / "fix.csv") == fixes


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", "=1+cmd|' /C calc'!A0", "+a", "-a.jpg", "@a", "\tb", "\n=1", "\r=1", "'=a", "''-a",
        "a\r=1", "a\n=1", "a\r\n=1", "a\r",
    ],
)  # fmt: skip
def test_no_text_of_a_list_is_a_formula_to_a_spreadsheet(tmp_path: Path, text):
    fixes = [FixRow(path=text, action="relabel", value=text, reason=text)]
    written = to_csv(fixes)
    with io.StringIO(written, newline="") as lines:
        _, line = csv.reader(lines)
    assert all(field[0] not in "=+-@\t\r\n" for field in line)
    (tmp_path / "fix.csv").write_text(written, encoding="utf-8", newline="")
    assert read_csv(tmp_path / "fix.csv") == fixes


@pytest.mark.parametrize("text", ["-3.5", "+1e-5", "it's", "'a'", "a=b", "'"])
def test_numbers_and_other_texts_stand_in_a_list_as_they_are(tmp_path: Path, text):
    fixes = [FixRow(path=text, action="relabel", value=text)]
    assert f"{text},relabel,{text}," in to_csv(fixes)
    (tmp_path / "fix.csv").write_text(to_csv(fixes), encoding="utf-8")
    assert read_csv(tmp_path / "fix.csv") == fixes


def test_empty_rows_of_a_spreadsheet_are_left_out(tmp_path: Path):
    (tmp_path / "fix.csv").write_text("path,action,value\r\na,drop,\r\n,,\r\n,,,,\r\n\r\n")
    assert read_csv(tmp_path / "fix.csv") == [row("a", "drop")]


def test_a_line_said_twice_is_one_fix(store, tag):
    fixes = [row("train/cat/01.jpg", "drop")]
    assert store.add_fixed(tag, fixes * 2).tag == store.add_fixed(tag, fixes).tag


def test_the_longest_line_can_be_read_back_and_longer_ones_are_refused(tmp_path: Path):
    longest = row("p" * 100_000, "relabel", "v" * 10_000, reason='"' * 10_000)
    (tmp_path / "fix.csv").write_text(to_csv([longest]), encoding="utf-8")
    assert read_csv(tmp_path / "fix.csv") == [longest]
    for name in ("path", "value", "reason"):
        with pytest.raises(ValidationError, match="at most"):
            FixRow(**longest.model_dump() | {name: "x" * 100_001})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "header"),
        ("path,value\na,b\n", "header"),
        ("path,action,action\na,drop,drop\n", "header"),
        ("path,action\na\n", "Line 2"),
        ("path,action\na,drop\nb,burn\n", "Line 3"),
        ("\npath,action\n\n,\na\n", "Line 5"),
        ("path,action\n\n\na,drop\nb,burn\n", "Line 5"),
        ("path,action,confidence\na,drop,lots\n", "Line 2"),
        ('path,action\n"a,drop\n', "CSV"),
    ],
)
def test_what_is_no_list_is_refused_by_its_line(tmp_path: Path, text, says):
    (tmp_path / "fix.csv").write_text(text)
    with pytest.raises(BadArgument, match=says):
        read_csv(tmp_path / "fix.csv")
