"""Dataset: one content, however it is packed; reading; lineage."""

import hashlib
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from imgcls import images
from imgcls.data import DatasetStore, open_dataset
from imgcls.data import index as index_module
from imgcls.errors import BadArgument, BadDataset, DatasetNotFound


def splits_of(dataset):
    return dict(
        zip(dataset.index["path"].to_pylist(), dataset.index["split"].to_pylist(), strict=True)
    )


def test_folder_zip_and_tar_are_one_dataset(pets, folder_of, zip_of, tar_of):
    wrapped = {f"mydata/{path}": data for path, data in reversed(pets.items())}
    dotted = {f"./{path}": data for path, data in pets.items()}
    sources = [
        folder_of(pets), zip_of(pets), tar_of(pets), tar_of(pets, "pets.tar.gz", "w:gz"),
        zip_of(wrapped, "wrapped.zip"), tar_of(dotted, "dotted.tar"), folder_of(wrapped, "wrapped"),
    ]  # fmt: skip
    datasets = [open_dataset(source, name="pets") for source in sources]
    assert len({dataset.tag for dataset in datasets}) == 1
    assert all(splits_of(dataset) == splits_of(datasets[0]) for dataset in datasets)
    rows = [[dataset.read(row) for row in range(len(dataset))] for dataset in datasets]
    assert all(row == rows[0] for row in rows)


def test_the_version_follows_content_names_and_splits_and_not_the_seed(pets, zip_of, picture):
    tag = open_dataset(zip_of(pets), name="pets").tag
    assert open_dataset(zip_of(pets, "b.zip"), name="pets", seed=7).tag == tag
    others = [
        pets | {"cat/00.jpg": picture(999)},
        {path.replace("00", "99"): data for path, data in pets.items()},
        {path.replace("cat", "lion"): data for path, data in pets.items()},
        {f"train/{path}": data for path, data in pets.items()},
    ]
    tags = {open_dataset(zip_of(files, "b.zip"), name="pets").tag for files in others}
    assert len(tags | {tag}) == 5


@pytest.mark.parametrize("lines", [1, 7, 1000])
def test_the_version_is_that_of_the_lines_whatever_is_put_together_at_once(
    lines, pets, zip_of, monkeypatch
):
    """As versions always were: else datasets and models of before would be strangers."""
    monkeypatch.setattr(index_module, "_LINES", lines)
    files = {f"train/{path}": data for path, data in pets.items()}
    stated = (
        (path, path.split("/")[1], "train", hashlib.blake2b(data, digest_size=20).hexdigest())
        for path, data in files.items()
    )
    text = "\n".join(sorted(map("\0".join, stated)))
    mark = hashlib.blake2b(text.encode(), digest_size=20).hexdigest()[:12]
    assert open_dataset(zip_of(files), name="pets").tag == f"pets:{mark}"


def test_the_index_measures_upright_fully_decoded_pixels(pets, zip_of, picture):
    files = pets | {
        "cat/a.png": picture(1, (33, 17), "PNG"),
        "cat/b.gif": picture(2, (5, 300), "GIF"),
        "cat/c.webp": picture(3, (1, 1), "WEBP"),
        "cat/d.bmp": picture(4, (700, 3), "BMP"),
        "dog/e.jpg": picture(5, (400, 600), "JPEG"),
    }
    with open_dataset(zip_of(files)) as dataset:
        for row in dataset.index.to_pylist():
            data = files[row["path"]]
            pixels = images.decode(data).astype(np.int64)
            assert (row["height"], row["width"]) == pixels.shape[:2]
            assert [row[f"sum_{c}"] for c in "rgb"] == pixels.sum((0, 1)).tolist()
            assert [row[f"sumsq_{c}"] for c in "rgb"] == (pixels**2).sum((0, 1)).tolist()
            assert row["bytes"] == len(data)
            assert row["format"] == images.probe(data).format
            assert row["content_hash"] == hashlib.blake2b(data, digest_size=20).hexdigest()
            assert row["error"] is None


def test_a_picture_and_its_smaller_copy_have_nearly_the_same_perceptual_hash(folder_of):
    import io

    from PIL import Image

    ramp = np.add.outer(np.sin(np.arange(200) / 9) * 60, np.cos(np.arange(240) / 23) * 60) + 128
    image = Image.fromarray(ramp.astype(np.uint8))

    def encoded(picture):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()

    files = {
        "a/1.png": encoded(image),
        "a/2.png": encoded(image.resize((120, 100))),
        "b/1.png": encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    }
    hashes = open_dataset(folder_of(files)).index["phash"].to_pylist()
    assert (hashes[0] ^ hashes[1]).bit_count() <= 4
    assert (hashes[0] ^ hashes[2]).bit_count() >= 20


def test_files_that_cannot_be_decoded_are_rows_with_an_error(pets, zip_of):
    bad = {
        "cat/empty.jpg": b"",
        "cat/text.png": b"hello",
        "cat/cut.jpg": pets["cat/01.jpg"][:60],
        "fox/only.jpg": b"nothing",
    }
    with open_dataset(zip_of(pets | bad)) as dataset:
        rows = {row["path"]: row for row in dataset.index.to_pylist() if row["error"]}
        assert sorted(rows) == sorted(bad)
        assert rows["cat/empty.jpg"]["error"].startswith("empty_image: ")
        assert rows["cat/text.png"]["error"].startswith("unsupported_image: ")
        assert {rows[path]["width"] for path in bad} == {None}
        assert dataset.labels == ["cat", "dog"]
        assert dataset.lineage().images == len(pets)


def test_a_class_without_a_readable_image_does_not_count(pets, zip_of):
    files = {path: data for path, data in pets.items() if path < "d"} | {"dog/1.jpg": b"x"}
    with pytest.raises(BadDataset, match=r"found for 1 \(cat\).*unsupported_image"):
        open_dataset(zip_of(files))


def test_text_that_is_called_jpg_is_told_of_as_that(folder_of):
    files = {f"{label}/{n}.jpg": b"not a picture" for label in ("cat", "dog") for n in range(3)}
    with pytest.raises(BadDataset, match=r"no image that can be read. 6 of 6 .* supported: JPEG"):
        open_dataset(folder_of(files))


def test_images_above_the_pixel_limit_are_rows_with_an_error(pets, zip_of, limit, picture):
    limit(max_image_pixels=200)
    with open_dataset(zip_of(pets | {"cat/big.jpg": picture(1, (20, 20))})) as dataset:
        errors = [error for error in dataset.index["error"].to_pylist() if error]
        assert [error.split(":")[0] for error in errors] == ["image_too_large"]


def test_rows_targets_and_lineage_agree(pets, zip_of):
    dataset = open_dataset(zip_of(pets), seed=3)
    rows = {split: dataset.rows(split) for split in ("train", "val", "test")}
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(20))
    for split, found in rows.items():
        assert found.dtype == np.int64
        labels = [dataset.labels[target] for target in dataset.targets(found)]
        assert labels == [dataset.index["label"][row].as_py() for row in found.tolist()]
        assert dataset.lineage().splits[split] == len(found)
    assert (dataset.lineage().seed, dataset.lineage().tag) == (3, dataset.tag)
    with pytest.raises(BadArgument, match="no split 'dev'"):
        dataset.rows("dev")


@pytest.mark.parametrize("kind", ["folder_of", "zip_of", "tar_of"])
def test_threads_may_share_a_dataset(pets, kind, request):
    with open_dataset(request.getfixturevalue(kind)(pets)) as dataset:
        rows = list(range(20)) * 20
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(dataset.read, rows))
        paths = dataset.index["path"].to_pylist()
        assert found == [pets[paths[row]] for row in rows]


def test_a_dataset_can_be_pickled(pets, zip_of):
    dataset = open_dataset(zip_of(pets), seed=2)
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    dataset.close()
    assert splits_of(copy) == splits_of(dataset)
    assert copy.read(0) == pets["cat/00.jpg"]


def test_links_in_a_folder_lead_nowhere_outside_of_it(pets, folder_of, tmp_path, picture):
    root = folder_of(pets)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.jpg").write_bytes(picture(999))
    (root / "cat" / "secret.jpg").symlink_to(tmp_path / "outside" / "secret.jpg")
    (root / "cat" / "nothing.jpg").symlink_to(tmp_path / "missing.jpg")
    (root / "cat" / "again.jpg").symlink_to(root / "dog" / "00.jpg")
    (root / "loop").symlink_to(root)
    (root / "fox").symlink_to(tmp_path / "outside")
    with open_dataset(root) as dataset:
        paths = dataset.index["path"].to_pylist()
        assert paths == sorted([*pets, "cat/again.jpg"])
        assert dataset.read(paths.index("cat/again.jpg")) == pets["dog/00.jpg"]
    assert DatasetStore().add(root).ignored == 4


def test_a_folder_of_links_that_lead_outside_of_it_is_refused_with_their_number(
    pets, folder_of, tmp_path
):
    for path in pets:
        link = tmp_path / "links" / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder_of(pets) / path)
    with pytest.raises(BadDataset, match="only 20 links that lead outside of it; copy"):
        open_dataset(tmp_path / "links")


def test_odd_file_names_in_a_folder_are_read(pets, folder_of):
    import os

    root = folder_of(pets)
    (root / "cat" / "new\nline\t\u00e9.jpg").write_bytes(pets["cat/00.jpg"])
    with open(os.fsencode(root) + b"/cat/\xff.jpg", "wb") as file:
        file.write(pets["cat/00.jpg"])
    with open_dataset(root) as dataset:
        assert len(dataset) == 22
        assert dataset.index["error"].null_count == 22
        assert sum(dataset.read(row) == pets["cat/00.jpg"] for row in range(22)) == 3


def test_a_source_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(BadDataset, match=r"missing\.zip"):
        open_dataset(tmp_path / "missing.zip")
    with pytest.raises(BadDataset, match=r"missing\.zip"):
        open_dataset("missing.zip")
    with pytest.raises(DatasetNotFound, match="the store is empty"):
        open_dataset("missing")


def test_measuring_needs_neither_pyarrow_nor_a_framework():
    code = "import sys, imgcls.data.worker; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"pyarrow", "torch", "sklearn", "pandas", "bentoml", "training"} & set(loaded)


def test_a_view_has_other_splits_and_the_same_images(pets, zip_of):
    with open_dataset(zip_of(pets)) as dataset:
        test, train = dataset.rows("test"), dataset.rows("train")
        view = dataset.view(train=train[:4], test=np.append(test, train[0]))
        assert view.rows("train").tolist() == train[:4].tolist()
        assert view.rows("test").tolist() == [*test.tolist(), train[0]]
        assert view.rows("val").tolist() == dataset.rows("val").tolist()
        assert dataset.rows("train").tolist() == train.tolist()
        assert view.read(train[0]) == dataset.read(train[0])
        assert view.lineage().splits["train"] == 4
        copy = pickle.loads(pickle.dumps(view))  # noqa: S301
        assert copy.rows("train").tolist() == train[:4].tolist()
        copy.close()
        with pytest.raises(BadArgument, match="validation"):
            dataset.view(validation=train)
