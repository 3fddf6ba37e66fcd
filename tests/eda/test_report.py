"""Profile: figures that can be checked by hand, and by plain numpy."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from imgcls import images
from imgcls.data import open_dataset
from imgcls.eda import Profile, profile


def encode(pixels, fmt="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, fmt)
    return buffer.getvalue()


def plain(rgb, width=4, height=2, fmt="PNG"):
    return encode(np.full((height, width, 3), rgb, np.uint8), fmt)


def noise(seed, width=9, height=7, fmt="PNG"):
    shape = (height, width, 3)
    return encode(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), fmt)


@pytest.fixture
def open_files(tmp_path):
    def write(files):
        for path, data in files.items():
            (tmp_path / "set" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / path).write_bytes(data)
        return open_dataset(tmp_path / "set")

    return write


def given_splits(make):
    """A class a colour, three splits, two images each."""
    return {
        f"{split}/{label}/{n}.png": make(100 * s + 10 * k + n)
        for s, split in enumerate(("train", "val", "test"))
        for k, label in enumerate(("fake", "real"))
        for n in range(2)
    }


def test_means_and_deviations_weigh_every_pixel_alike(open_files):
    files = given_splits(noise) | {
        "train/fake/black.png": plain((0, 0, 0), 4, 2),
        "train/real/large.png": plain((255, 0, 51), 40, 20),
    }
    found = profile(open_files(files))
    for group, pick in [
        (found.overall, ""), (found.splits["train"], "train/"),
        (found.split_classes["train"]["real"], "train/real/"), (found.classes["fake"], "/fake/"),
    ]:  # fmt: skip
        chosen = [images.decode(data) for path, data in files.items() if pick in path]
        pixels = np.concatenate([image.reshape(-1, 3) for image in chosen]) / 255
        assert group.images == len(chosen)
        np.testing.assert_allclose(group.mean_rgb, pixels.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(group.std_rgb, pixels.std(axis=0), rtol=1e-9)


def test_pixels_sides_formats_and_bytes(open_files):
    files = given_splits(noise) | {
        "train/fake/a.png": plain((1, 2, 3), 4, 2),
        "train/fake/b.jpg": plain((1, 2, 3), 16, 8, "JPEG"),
    }
    group = profile(open_files(files)).split_classes["train"]["fake"]
    assert (group.pixels.min, group.pixels.max) == (8, 128)
    assert group.pixels.mean == (63 + 63 + 8 + 128) / 4
    assert (group.width.min, group.width.max, group.height.min, group.height.max) == (4, 16, 2, 8)
    assert group.formats == {"PNG": 3, "JPEG": 1}
    sizes = [len(data) for path, data in files.items() if path.startswith("train/fake/")]
    assert (group.bytes_total, group.bytes_mean) == (sum(sizes), sum(sizes) / 4)


def test_one_colour_has_no_deviation(open_files):
    files = {f"{label}/{n}.png": plain((200, 100, 7)) for label in "ab" for n in range(3)}
    found = profile(open_files(files)).overall
    assert found.std_rgb == (0, 0, 0)
    np.testing.assert_allclose(found.mean_rgb, [200 / 255, 100 / 255, 7 / 255])


def test_counts_add_up_and_every_split_names_every_class(open_files):
    files = given_splits(noise) | {"train/rare/1.png": noise(999), "train/rare/bad.png": b"x"}
    found = profile(open_files(files))
    assert set(found.splits) == set(found.split_classes) == {"train", "val", "test"}
    for split, classes in found.split_classes.items():
        assert sorted(classes) == ["fake", "rare", "real"]
        assert sum(group.images for group in classes.values()) == found.splits[split].images
    assert found.split_classes["test"]["rare"].images == 0
    assert found.split_classes["test"]["rare"].mean_rgb is None
    assert (found.classes["rare"].images, found.classes["rare"].unreadable) == (1, 1)
    assert found.overall.images == 13


def test_copies_are_listed_with_what_makes_them_harmful(open_files):
    files = given_splits(noise)
    copies = {
        "train/fake/copy.png": files["train/fake/0.png"],
        "train/real/lie.png": files["train/fake/1.png"],
        "test/real/leak.png": files["train/real/0.png"],
    }
    found = profile(open_files(files | copies)).duplicates
    assert (found.total, found.images, found.across_labels, found.across_splits) == (3, 3, 1, 1)
    assert [[file.path for file in group.files] for group in found.groups] == [
        ["train/fake/1.png", "train/real/lie.png"],
        ["test/real/leak.png", "train/real/0.png"],
        ["train/fake/0.png", "train/fake/copy.png"],
    ]
    assert [group.across_labels for group in found.groups] == [True, False, False]
    assert [group.across_splits for group in found.groups] == [False, True, False]
    assert [file.split for file in found.groups[1].files] == ["test", "train"]


def test_copies_are_counted_within_a_group_only(open_files):
    files = given_splits(noise)
    leak = {"test/fake/leak.png": files["train/fake/0.png"]}
    found = profile(open_files(files | leak))
    assert found.classes["fake"].duplicates == 1
    assert found.splits["test"].duplicates == found.splits["train"].duplicates == 0


def test_unreadable_files_are_named_with_code_and_reason(open_files):
    files = given_splits(noise) | {"val/fake/cut.png": noise(1)[:80], "val/fake/empty.png": b""}
    found = profile(open_files(files)).unreadable
    assert found.total == 2
    assert [(image.path, image.code) for image in found.images] == [
        ("val/fake/cut.png", "broken_image"),
        ("val/fake/empty.png", "empty_image"),
    ]
    assert found.images[1].reason.startswith("The file is empty")


def test_lists_are_capped_and_counts_are_not(open_files, monkeypatch):
    from imgcls.eda import duplicates, report

    monkeypatch.setattr(duplicates, "LISTED", 2)
    monkeypatch.setattr(report, "LISTED", 2)
    files = given_splits(noise)
    copies = {path.replace("/0", "/copy"): data for path, data in files.items()}
    bad = {f"train/fake/bad{n}.png": b"x" for n in range(5)}
    found = report.profile(open_files(files | copies | bad))
    assert (found.duplicates.total, len(found.duplicates.groups)) == (6, 2)
    assert (found.unreadable.total, len(found.unreadable.images)) == (5, 2)


def test_sizes_are_listed_by_frequency(open_files):
    files = given_splits(noise) | {"train/fake/a.png": plain((1, 2, 3), 4, 2)}
    sizes = profile(open_files(files)).sizes
    assert sizes.total == 2
    assert [(size.width, size.height, size.images) for size in sizes.sizes] == [
        (9, 7, 12),
        (4, 2, 1),
    ]


def test_a_profile_is_json_and_back(open_files):
    found = profile(open_files(given_splits(noise)))
    text = found.model_dump_json()
    assert Profile.model_validate_json(text) == found
    assert json.loads(text)["schema_version"] == 1


def test_real_pets_have_the_known_figures(pets_zip):
    found = profile(open_dataset(pets_zip))
    assert {split: group.images for split, group in found.splits.items()} == {
        "train": 4050, "val": 450, "test": 900,
    }  # fmt: skip
    assert found.overall.pixels.model_dump() == {"mean": 1024, "min": 1024, "max": 1024}
    assert found.overall.formats == {"JPEG": 5400}
    assert all(0.2 < value < 0.7 for value in (*found.overall.mean_rgb, *found.overall.std_rgb))


def test_each_image_has_a_brightness_an_aspect_and_a_sharpness(open_files):
    files = given_splits(noise) | {
        "train/fake/dark.png": plain((10, 10, 10), 40, 20),
        "train/fake/light.png": plain((250, 250, 250), 10, 20),
    }
    group = profile(open_files(files)).split_classes["train"]["fake"]
    chosen = [images.decode(data) for path, data in files.items() if "train/fake" in path]
    grey = [float((image @ np.array([0.299, 0.587, 0.114])).mean()) for image in chosen]
    assert group.brightness.mean == pytest.approx(np.mean(grey))
    assert (group.brightness.min, group.brightness.max) == pytest.approx((10, 250))
    assert (group.aspect.min, group.aspect.max) == (0.5, 2)
    assert group.blur.min == 0
    assert group.blur.max > 1000


def test_histograms_count_every_image_once_in_bins_that_all_groups_share(open_files):
    files = given_splits(noise) | {
        "train/fake/large.png": noise(1, 90, 70),
        "train/fake/bad.png": b"x",
        "train/real/dark.png": plain((0, 0, 0), 1, 1),
    }
    found = profile(open_files(files))
    assert set(found.edges) == {
        "width", "height", "pixels", "aspect", "file_size", "brightness", "blur",
    }  # fmt: skip
    groups = [found.overall, *found.splits.values(), *found.classes.values()]
    for name, edges in found.edges.items():
        assert edges == sorted(edges)
        for group in groups:
            assert len(group.histograms[name]) == len(edges) - 1
            assert sum(group.histograms[name]) == group.images
    assert found.edges["width"] == pytest.approx(np.linspace(1, 90, 21))
    assert (
        found.overall.histograms["width"][-1] == found.classes["fake"].histograms["width"][-1] == 1
    )
    assert found.overall.histograms["brightness"][0] == 1
    assert found.split_classes["train"]["fake"].histograms == {}


def test_what_all_images_share_is_one_bin(open_files):
    files = {f"{label}/{n}.png": plain((200, 100, 7)) for label in "ab" for n in range(3)}
    found = profile(open_files(files))
    assert found.edges["width"] == [3.5, 4.5]
    assert found.overall.histograms["width"] == [6]


def test_an_index_without_sharpness_has_none_in_its_profile(open_files, home):
    import pyarrow.parquet as pq

    tag = open_files(given_splits(noise)).tag
    path = next((home / "datasets").glob("set/*/index-*.parquet"))
    pq.write_table(pq.read_table(path).drop_columns(["blur"]), path)
    found = profile(open_dataset(tag))
    assert found.overall.blur is None
    assert "blur" not in found.edges
