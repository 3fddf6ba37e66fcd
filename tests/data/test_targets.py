"""Datasets for regression: targets, filters, groups, splits, versions, lineage."""

import pickle

import numpy as np
import pytest

from imgcls.data import DatasetStore, Labelling, open_dataset
from imgcls.errors import BadArgument, BadDataset

PATTERN = "{id}_{gender}_{country}_{rate}_{votes}"
RATES = Labelling(pattern=PATTERN, target="rate")
GROUPED = RATES.model_copy(update={"group": "gender"})


@pytest.fixture(scope="session")
def faces():
    """Sixty images named as those of the score system; rates 0.00 to 9.83, votes 0 to 9."""
    import io

    from PIL import Image

    def picture(seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    return {f"IMG_{n:02d}_{'mw'[n % 2]}_US_{n / 6:.2f}_{n % 10}.png": picture(n) for n in range(60)}


def test_targets_come_from_the_names(faces, zip_of):
    with open_dataset(zip_of(faces), labelling=RATES) as dataset:
        assert (dataset.task, dataset.target_name, dataset.labels) == ("regression", "rate", [])
        targets = dataset.targets(np.arange(60))
        assert targets.dtype == np.float32
        told = [float(dataset.name(row).split("_")[4]) for row in range(60)]
        np.testing.assert_allclose(targets, told, rtol=1e-6)
        dataset.check_trainable()


def test_folders_may_be_labels_while_names_filter(faces, zip_of):
    files = {f"{path.split('_')[2]}/{path}": data for path, data in faces.items()}
    labelling = Labelling(pattern=PATTERN, where="votes>=5")
    with open_dataset(zip_of(files), labelling=labelling) as dataset:
        assert (dataset.task, dataset.labels, dataset.target_name) == (
            "classification", ["m", "w"], "",
        )  # fmt: skip
        assert dataset.lineage().images == 30


def test_a_field_called_label_is_the_label(faces, zip_of):
    labelling = Labelling(pattern="{id}_{label}_{country}_{rate}_{votes}")
    with open_dataset(zip_of(faces), labelling=labelling) as dataset:
        assert dataset.labels == ["m", "w"]
        assert dataset.targets([0, 1]).tolist() == [0, 1]


def test_the_filter_leaves_images_out(faces, zip_of):
    summary = DatasetStore().add(
        zip_of(faces), labelling=RATES.model_copy(update={"where": "votes>=7 and gender==w"})
    )
    assert (summary.images, summary.ignored) == (12, 48)
    with pytest.raises(BadDataset, match="No image is left by the filter 'votes>99'"):
        open_dataset(zip_of(faces), labelling=RATES.model_copy(update={"where": "votes>99"}))


def test_every_split_has_its_share_of_small_and_large_targets(faces, zip_of):
    with open_dataset(zip_of(faces), labelling=RATES) as dataset:
        splits = {split: dataset.rows(split) for split in ("train", "val", "test")}
        assert [len(rows) for rows in splits.values()] == [45, 6, 9]
        for rows in splits.values():
            targets = dataset.targets(rows)
            assert {0, 1, 2} == set((targets / 3.34).astype(int).tolist())


def test_split_folders_are_kept_and_wrapping_ones_are_not(faces, zip_of):
    names = sorted(faces)
    files = {f"top/{'test' if n % 4 == 0 else 'Train'}/{p}": faces[p] for n, p in enumerate(names)}
    with open_dataset(zip_of(files), labelling=RATES) as dataset:
        test = {dataset.name(row) for row in dataset.rows("test").tolist()}
        assert test == {f"test/{path}" for path in names[::4]}
        assert len(dataset.rows("val")) > 0


def test_the_version_follows_the_labelling(faces, zip_of, folder_of):
    path = zip_of(faces)
    ways = [RATES, GROUPED, RATES.model_copy(update={"where": "votes>=0"}),
            Labelling(pattern=PATTERN, target="votes")]  # fmt: skip
    tags = [open_dataset(path, name="faces", labelling=way).tag for way in ways]
    assert len(set(tags)) == 4
    assert open_dataset(folder_of(faces), name="faces", labelling=RATES).tag == tags[0]
    assert open_dataset(path, name="faces", labelling=RATES, seed=3).tag == tags[0]


def test_a_stored_dataset_keeps_how_it_was_read(faces, zip_of):
    path = zip_of(faces)
    tag = DatasetStore().add(path, labelling=GROUPED, move=True).tag
    dataset = open_dataset(tag)
    assert (dataset.target_name, dataset.groups) == ("rate", ["m", "w"])
    assert DatasetStore().get(tag).labelling == GROUPED
    assert DatasetStore().get(tag).groups == ["m", "w"]
    assert open_dataset(tag, labelling=RATES).labelling == GROUPED
    with pytest.raises(BadArgument, match="keeps the pattern"):
        open_dataset(tag, labelling=RATES.model_copy(update={"where": "votes>=5"}))


def test_a_group_alone_has_the_splits_that_it_has_among_all(faces, zip_of):
    whole = open_dataset(zip_of(faces), labelling=GROUPED)
    split_of = dict(
        zip(whole.index["path"].to_pylist(), whole.index["split"].to_pylist(), strict=True)
    )
    men = open_dataset(whole.tag, group="m")
    assert len(men) == 30
    for copy in (men, pickle.loads(pickle.dumps(men))):  # noqa: S301
        for row, split in enumerate(copy.index["split"].to_pylist()):
            assert "_m_" in copy.name(row)
            assert split == split_of[copy.name(row)]
            assert copy.read(row) == faces[copy.name(row)]
    assert men.rows("test").max() < 30
    with pytest.raises(BadArgument, match=r"no group 'x'; there are: m, w"):
        open_dataset(whole.tag, group="x")


def test_lineage_says_it_all(faces, zip_of):
    labelling = GROUPED.model_copy(update={"where": "votes>=1"})
    with open_dataset(zip_of(faces), labelling=labelling, group="w") as dataset:
        told = dataset.lineage()
    assert (told.pattern, told.target, told.where, told.group) == (
        PATTERN, "rate", "votes>=1", "gender==w",
    )  # fmt: skip


def test_weights_average_to_one(faces, zip_of):
    labelling = Labelling(pattern="{id}_{gender}_{country}_{rate}_{weight}", target="rate")
    with open_dataset(zip_of(faces), labelling=labelling) as dataset:
        weights = dataset.weights(np.arange(60))
        assert weights.dtype == np.float32
        assert weights.mean() == pytest.approx(1)
        assert weights[9] == pytest.approx(2 * weights[4] + weights[1])
    with open_dataset(zip_of(faces), labelling=RATES) as dataset:
        assert dataset.weights([0, 1]) is None


@pytest.mark.parametrize(
    ("labelling", "files", "told"),
    [
        (Labelling(target="rate"), {}, "no field 'rate'; give a pattern or a table"),
        (Labelling(pattern=PATTERN, target="rat"), {}, "no field 'rat'; there are: id, gender"),
        (Labelling(pattern=PATTERN, target="rate", where="vote>1"), {}, "no field 'vote'"),
        (Labelling(pattern=PATTERN, target="rate", group="sex"), {}, "no field 'sex'"),
        (Labelling(pattern="{label}_{rate}", target="rate"), {}, "either a label or a target"),
        (Labelling(pattern=PATTERN, target="gender"), {}, "gender of .* is 'm'; a number"),
        (Labelling(pattern=PATTERN, target="rate", group="id"), {}, "60 values"),
        (RATES, {"x_m_US_nan_3.png": b""}, "rate of 'x_m_US_nan_3.png' is 'nan'"),
        (RATES, {"x_m_US_1e40_3.png": b""}, "rate of .* is '1e40'"),
        (Labelling(pattern="{id}-{rate}", target="rate"), {}, "matches the pattern"),
        (RATES, {f"{n}.png": b"" for n in range(70)}, "70 of 130 images do not match"),
    ],
)
def test_what_does_not_fit_is_refused(faces, zip_of, labelling, files, told):
    with pytest.raises((BadArgument, BadDataset), match=told):
        open_dataset(zip_of(faces | files), labelling=labelling)


def test_a_few_names_that_do_not_match_are_left_out(faces, zip_of):
    summary = DatasetStore().add(zip_of(faces | {"cover.png": b""}), labelling=RATES)
    assert (summary.images, summary.ignored) == (60, 1)


def test_targets_that_are_all_alike_cannot_be_trained_on(faces, zip_of):
    files = {f"{n}_5.png": data for n, data in enumerate(faces.values())}
    labelling = Labelling(pattern="{id}_{rate}", target="rate")
    with (
        open_dataset(zip_of(files), labelling=labelling) as dataset,
        pytest.raises(BadDataset, match="all have the same rate"),
    ):
        dataset.check_trainable()


def test_datasets_without_readable_images_are_refused(zip_of):
    files = {f"{n}_5.png": b"x" for n in range(3)}
    with pytest.raises(BadDataset, match="no image that can be read"):
        open_dataset(zip_of(files), labelling=Labelling(pattern="{id}_{r}", target="r"))


def test_an_index_from_before_there_were_targets_is_read(pets, zip_of, home):
    import pyarrow.parquet as pq

    tag = open_dataset(zip_of(pets)).tag
    path = next((home / "datasets").glob("pets/*/index-*.parquet"))
    old = pq.read_table(path)
    pq.write_table(old.drop_columns(["target", "weight", "group", "blur"]), path)
    with open_dataset(tag) as dataset:
        assert dataset.labels == ["cat", "dog"]
        assert dataset.lineage().images == 20
