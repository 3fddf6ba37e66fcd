"""What `find` says of small datasets with known faults."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcls.data import Labelling, open_dataset
from imgcls.findings import Finding, find
from imgcls.findings.classes import _by_name
from imgcls.findings.mending import to_fixes
from imgcls.findings.types import Fix

Files = dict[str, bytes]


def photo(seed: int, side: int = 64, quality: int = 90) -> bytes:
    """A smooth random picture: a photo's statistics, and a different one for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.fixture
def found(tmp_path: Path) -> Callable[[Files], list[Finding]]:
    def write_and_find(files: Files) -> list[Finding]:
        for path, data in files.items():
            (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / path).write_bytes(data)
        with open_dataset(tmp_path / "data") as dataset:
            return find(dataset)

    return write_and_find


@pytest.fixture
def clean() -> Files:
    return {
        f"{split}/{label}/{n}.jpg": photo(1000 * s + 100 * k + n)
        for s, split in enumerate(("train", "val", "test"))
        for k, label in enumerate(("cat", "dog"))
        for n in range(8)
    }


def test_clean_data_has_no_findings(found, clean):
    assert found(clean) == []


@pytest.mark.parametrize(
    ("copy", "kind"),
    [
        ("train/cat/copy.jpg", "exact_duplicate"),
        ("test/cat/copy.jpg", "leak"),
        ("train/dog/copy.jpg", "label_conflict"),
        ("test/dog/copy.jpg", "label_conflict"),
    ],
)
def test_the_same_bytes_elsewhere_are_found_by_what_they_spoil(found, clean, copy, kind):
    [finding] = found(clean | {copy: clean["train/cat/0.jpg"]})
    assert (finding.kind, finding.confidence) == (kind, 1)
    assert finding.paths == sorted(["train/cat/0.jpg", copy])


def test_a_truncated_file_is_found_and_dropped(found, clean):
    [finding] = found(clean | {"train/cat/cut.jpg": photo(7)[:600]})
    assert (finding.kind, finding.paths) == ("unreadable", ["train/cat/cut.jpg"])
    assert finding.fix is not None
    assert finding.fix.action == "drop"


def smaller(data: bytes) -> bytes:
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(data))
    picture.resize((48, 48), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("copy", "kind", "gone"),
    [
        ("train/cat/copy.jpg", "near_duplicate", ["train/cat/copy.jpg"]),
        ("test/cat/copy.jpg", "leak", ["train/cat/0.jpg"]),
    ],
)
def test_a_smaller_copy_is_found_and_the_one_that_measures_or_shows_more_stays(
    found, clean, copy, kind, gone
):
    [finding] = found(clean | {copy: smaller(clean["train/cat/0.jpg"])})
    assert finding.kind == kind
    assert finding.confidence >= 0.9
    assert finding.fix is not None
    assert (finding.fix.action, finding.fix.paths) == ("drop", gone)


def test_which_label_of_two_copies_is_right_is_left_to_a_person_unless_their_bytes_are_equal(
    found, clean
):
    [finding] = found(clean | {"train/dog/copy.jpg": smaller(clean["train/cat/0.jpg"])})
    assert finding.kind == "label_conflict"
    assert finding.confidence >= 0.9
    assert finding.fix is None


def shot(seed: int, scratch: tuple[int, int] | None = None, shift: int = 0) -> bytes:
    """A fixed scene with a camera's noise, perhaps with a scratch, or from a camera that moved."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    scene = Image.fromarray(coarse).resize((240, 240), Image.Resampling.BICUBIC)
    pixels = np.asarray(scene).astype(np.float32)[:, shift : shift + 200]
    pixels = pixels + np.random.default_rng(seed).normal(0, 4, pixels.shape)
    if scratch is not None:
        y, x = scratch
        pixels[y : y + 2, x : x + 24] = 0 if pixels[y, x].mean() > 128 else 255
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def test_shots_of_one_scene_with_and_without_a_scratch_are_not_one_picture(found):
    files = {f"good/{n}.jpg": shot(n) for n in range(3)}
    files |= {f"scratch/{n}.jpg": shot(100 + n, (20 + 60 * n, 30 + 50 * n)) for n in range(3)}
    kinds = {(finding.kind, tuple(finding.paths)) for finding in found(files)}
    assert ("near_duplicate", ("good/0.jpg", "good/1.jpg", "good/2.jpg")) in kinds
    assert not any("scratch" in path for _, paths in kinds for path in paths)


def test_what_looks_the_same_in_crowds_loses_no_image(found):
    files = {f"good/{n}.jpg": shot(n) for n in range(12)}
    files |= {f"other/{n}.jpg": photo(n) for n in range(12)}
    [finding] = found(files)
    assert finding.confidence < 0.9
    assert finding.fix is None or finding.fix.action == "move"


def test_frames_of_a_film_are_no_chain_of_copies(found):
    files = {f"a/{n:02d}.jpg": shot(n, shift=4 * n) for n in range(10)}
    files |= {f"b/{n}.jpg": photo(n) for n in range(10)}
    for finding in found(files):
        assert finding.confidence < 0.9 or len(finding.paths) == 2


def test_of_contradicting_labels_the_one_of_most_copies_stays(found, clean):
    copies = {f"train/{at}.jpg": clean["train/cat/0.jpg"] for at in ("dog/x", "cat/y")}
    [finding] = found(clean | copies)
    assert finding.fix is not None
    assert finding.fix.paths == ["train/cat/y.jpg", "train/dog/x.jpg"]


@pytest.mark.parametrize(
    ("rates", "kept"),
    [
        ([0, 0, 0, 90], {0}),
        ([10, 10, 80.1, 80.2, 80.3], {80.1, 80.2, 80.3}),  # as good as one target
        ([0, 0, 90, 90], None),
        ([0, 90], None),
    ],
)
def test_of_contradicting_targets_the_one_of_most_copies_stays(tmp_path, rates, kept):
    pictures = {f"{n:02d}_{5 * n}.jpg": photo(n) for n in range(20)}
    copies = {f"{40 + n}_{rate}.jpg": photo(99) for n, rate in enumerate(rates)}
    for name, data in (pictures | copies).items():
        (tmp_path / name).write_bytes(data)
    labelling = Labelling(pattern="{id}_{rate}", target="rate")
    with open_dataset(tmp_path, labelling=labelling) as dataset:
        [finding] = find(dataset)
    assert (finding.kind, finding.fix is not None) == ("label_conflict", True)
    assert finding.fix.action == "drop"
    left = set(copies) - set(finding.fix.paths)
    assert len(left) == (0 if kept is None else 1)
    assert {float(name[3:-4]) for name in left} <= (kept or set())


@pytest.mark.parametrize("name", ["cats", "Cat", "CATS", "c-at"])
def test_two_names_of_one_class_are_found_and_copies_between_them_contradict_nothing(
    found, clean, name
):
    more = {f"train/{name}/{n}.jpg": photo(5000 + n) for n in range(4)}
    copy = {f"train/{name}/copy.jpg": clean["train/cat/0.jpg"]}
    kinds = {finding.kind: finding for finding in found(clean | more | copy)}
    assert set(kinds) == {"similar_classes", "exact_duplicate"}
    fix = kinds["similar_classes"].fix
    assert kinds["similar_classes"].confidence >= 0.9
    assert fix is not None
    assert (fix.action, fix.paths, fix.value) == ("merge", [name], "cat")
    assert len(kinds["similar_classes"].paths) == 5


def test_classes_that_share_pictures_look_like_one(found, clean):
    shared = {f"train/pussy/{n}.jpg": clean[f"train/cat/{n}.jpg"] for n in range(6)}
    kinds = [finding.kind for finding in found(clean | shared)]
    assert kinds.count("similar_classes") == 1


@pytest.mark.parametrize(
    "pair",
    [
        ("shirt", "skirt"), ("class1", "class2"), ("glass", "bus"), ("1", "-1"), ("15", "1.5"),
        ("1-10", "11-0"), ("1 10", "11 0"), ("A+", "A"), ("A-", "A"), ("C", "C++"), ("C#", "C++"),
        ("\u304b\u304d", "\u304b\u304e"), ("\u0915\u093f", "\u0915\u0940"),
        ("\u0e01\u0e34", "\u0e01\u0e35"), ("glass", "glasses"), ("new", "news"),
        ("prince", "princess"), ("x", "xs"), ("vitamin b", "vitamin b+"), ("A", "a"),
        ("a", "\u00e4"), ("\u0411", "\u0431"), ("\u03a9", "\u03c9"),
    ],
)  # fmt: skip
def test_other_names_are_other_classes(pair):
    assert list(_by_name(pair)) == []


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("hat", "hats"), ("shoe", "shoes"), ("cookie", "cookies"), ("tie", "ties"), ("pie", "pies"),
        ("size", "sizes"), ("movie", "movies"), ("axe", "axes"), ("lens", "lenses"),
        ("cache", "caches"), ("cherry", "cherries"), ("dress", "dresses"), ("tomato", "Tomatoes"),
        ("t-shirt", "T Shirts"),
    ],
)  # fmt: skip
def test_a_plural_is_found(one, many):
    [(pair, sure, why)] = _by_name([many, one])
    assert pair == (min(one, many), max(one, many))
    assert sure >= 0.9
    assert "plural" in why


@pytest.mark.parametrize(
    "pair",
    [
        ("caf\u00e9", "Cafe"), ("type 1", "type1"), ("St. Bernard", "st_bernard"), ("1", "_1"),
        ("1_", "1"), ("A", "A_"), ("A", "\uff21"), ("1", "\uff11"), ("x", "x\u200d"),
    ],
)  # fmt: skip
def test_the_same_name_in_two_spellings_is_found(pair):
    [(_, sure, why)] = _by_name(pair)
    assert sure >= 0.9
    assert "case, spaces or accents" in why


def test_a_plural_of_what_is_no_word_is_doubted():
    [(_, sure, _)] = _by_name(["747s", "747"])
    assert sure < 0.9


def png(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "odd"),
    [
        ("tiny", photo(9, side=5)),
        ("blank", png(np.full((64, 64, 3), 255, np.uint8))),
        ("dark", png(np.array(Image.open(io.BytesIO(photo(9)))) // 16)),
        ("odd_aspect", png(np.array(Image.open(io.BytesIO(photo(9))).resize((400, 40))))),
    ],
)
def test_an_odd_image_is_found(found, clean, kind, odd):
    kinds = {one.kind: one for one in found(clean | {"train/cat/odd.png": odd})}
    assert kinds[kind].paths == ["train/cat/odd.png"]


def test_a_small_image_among_large_ones_is_doubted_and_not_dropped(found):
    files = {f"{'cat' if n % 2 else 'dog'}/{n}.jpg": photo(n, side=400) for n in range(14)}
    small = {f"cat/small-{n}.jpg": photo(100 + n, side=40) for n in range(4)}
    tiny = [one for one in found(files | small) if one.kind == "tiny"]
    assert {one.paths[0] for one in tiny} == set(small)
    assert all(one.confidence < 0.9 and one.fix is None for one in tiny)


def test_a_blurred_image_is_found_among_sharp_ones(found):
    noise = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
    files = {f"{'cat' if n % 2 else 'dog'}/{n}.png": png(noise[n]) for n in range(24)}
    [finding] = found(files | {"cat/soft.jpg": photo(3)})
    assert (finding.kind, finding.paths, finding.fix) == ("blurred", ["cat/soft.jpg"], None)


def test_a_list_of_fixes_names_each_image_once_and_the_surest_first(found, clean):
    faults = {
        "test/cat/copy.jpg": clean["train/cat/0.jpg"],
        "train/dog/copy.jpg": smaller(clean["val/dog/0.jpg"]),
        "train/cat/bad.jpg": b"x",
        "train/dogs/0.jpg": photo(77),
    }
    findings = found(clean | faults)
    rows = to_fixes(findings, 0.9)
    assert [row.confidence for row in rows] == sorted((r.confidence for r in rows), reverse=True)
    assert {(row.path, row.action, row.value) for row in rows} == {
        ("train/cat/0.jpg", "drop", ""),
        ("train/dog/copy.jpg", "drop", ""),
        ("train/cat/bad.jpg", "drop", ""),
        ("dogs", "merge", "dog"),
    }
    assert to_fixes(findings, 1.01) == []


def test_a_finding_too_long_for_a_list_is_cut_and_its_endless_names_left_out():
    fix = Fix(action="drop", paths=["a.jpg", "b" * 200_000])
    finding = Finding(
        kind="unreadable", paths=fix.paths, confidence=1, message="x" * 20_000, fix=fix
    )
    [row] = to_fixes([finding])
    assert (row.path, len(row.reason)) == ("a.jpg", 10_000)
