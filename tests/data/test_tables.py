"""Tables of labels, targets, splits, weights and groups."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgcls.data import DatasetStore, Labelling, open_dataset
from imgcls.data import tables as tables_module
from imgcls.data.tables import read_table
from imgcls.errors import BadArgument, BadDataset

HEADER = "path,target,split,weight,group,votes\n"


@pytest.fixture
def photos(picture):
    return {f"{n:02d}.jpg": picture(n) for n in range(20)}


@pytest.fixture
def written(tmp_path):
    def write(text, name="scores.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def rows(count=20):
    return "".join(
        f"{n:02d}.jpg,{n / 2},{'test' if n >= 15 else 'train'},{1 + n % 2},{'ab'[n % 2]},{n}\n"
        for n in range(count)
    )


def test_a_table_says_targets_splits_weights_and_groups(photos, zip_of, written):
    with open_dataset(zip_of(photos), table=written(HEADER + rows())) as dataset:
        assert (dataset.task, dataset.target_name, dataset.groups) == (
            "regression", "target", ["a", "b"],
        )  # fmt: skip
        assert dataset.targets([0, 3]).tolist() == [0, 1.5]
        assert dataset.rows("test").tolist() == list(range(15, 20))
        assert dataset.weights([0, 1]).tolist() == pytest.approx([2 / 3, 4 / 3])
        assert dataset.lineage().table == dataset.labelling.table


def test_any_column_may_be_the_target_and_parquet_will_do(photos, zip_of, tmp_path):
    names = [f"./{name}" for name in photos]
    table = pa.table({"path": names, "Rate": [n / 3 for n in range(20)], "votes": range(20)})
    pq.write_table(table, tmp_path / "t.parquet")
    labelling = Labelling(target="Rate", where="votes>=5")
    with open_dataset(zip_of(photos), labelling=labelling, table=tmp_path / "t.parquet") as dataset:
        assert len(dataset) == 15
        assert dataset.targets([0])[0] == pytest.approx(5 / 3)


def test_a_column_of_bytes_in_a_parquet_table_is_no_field(photos, zip_of, tmp_path):
    labels = ["cat" if n % 2 else "dog" for n in range(20)]
    columns = {"path": list(photos), "label": labels, "thumb": [b"\xff\xd8"] * 20}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.fields == ("label",)
    assert [row["label"] for row in table.rows.values()] == labels
    twice = pa.table([labels, labels], names=["path", "path"])
    pq.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(BadDataset):
        read_table(tmp_path / "t.parquet")


def test_labels_from_a_table(photos, folder_of, written):
    text = "path,label\n" + "".join(f"{name},{'ab'[n % 2]} \n" for n, name in enumerate(photos))
    with open_dataset(folder_of(photos), table=written(text)) as dataset:
        assert len(dataset.labels) == 2
        assert dataset.task == "classification"


def test_images_that_the_table_does_not_hold_are_left_out(photos, zip_of, written):
    summary = DatasetStore().add(zip_of(photos), table=written(HEADER + rows(18)))
    assert (summary.images, summary.ignored) == (18, 2)


def test_paths_may_begin_below_wrapping_folders(photos, zip_of, written):
    files = {f"top/images/{name}": data for name, data in photos.items()}
    for head in ("", "images/", "top/images/"):
        text = HEADER + "".join(f"{head}{line}\n" for line in rows().splitlines())
        assert len(open_dataset(zip_of(files), table=written(text))) == 20


def test_the_version_follows_the_table(photos, zip_of, written):
    path = zip_of(photos)
    tags = {
        open_dataset(path, table=written(HEADER + text)).tag
        for text in (rows(), rows().replace("1.5", "1.6"), rows(19))
    }
    assert len(tags) == 3


def test_a_table_beside_a_pattern_is_refused(photos, zip_of, written):
    with pytest.raises(BadArgument, match="either a pattern or a table"):
        open_dataset(
            zip_of(photos), labelling=Labelling(pattern="{id}"), table=written(HEADER + rows())
        )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "needs a header with a column `path`"),
        ("path,target\n", "no rows"),
        ("file,target\n00.jpg,3\n", "column `path`"),
        ("path,path\n00.jpg,3\n", "each column once"),
        ("path,target\n00.jpg\n", "Line 2 of the table has 1 values"),
        ("path,target\n00.jpg,3\n00.jpg,4\n", "names '00.jpg' twice"),
        ("path,target\n00.jpg,3\nno.jpg,4\n", "1 of 2 images of the table are not in the data"),
        ("path,target\n../00.jpg,3\n", "are not in the data"),
        ("path,target\n00.jpg,\n", "target of '00.jpg' is ''"),
        ("path,target,weight\n00.jpg,1,-2\n", "weight of '00.jpg' is '-2'; .* not below 0"),
        ("path,target,split\n00.jpg,1,dev\n", "split of '00.jpg' is 'dev'"),
        ("path,target,split\n00.jpg,1,test\n", "some must be left for train"),
        ("path,target,group\n00.jpg,1,\n", "name a group for every image"),
        ("path,label,target\n00.jpg,a,1\n", r"Two classes are needed, .* for 1 \(a\)"),
        (b"path,label\n\xff,a\n", "neither CSV in UTF-8 nor Parquet"),
        ('path,label\n"00.jpg,a\n', "neither CSV in UTF-8 nor Parquet"),
        (b"PAR1nonsense", "Parquet table cannot be read"),
    ],
)
def test_what_is_no_table_is_refused(photos, zip_of, written, text, told):
    with pytest.raises(BadDataset, match=told):
        open_dataset(zip_of(photos), table=written(text))


def test_a_table_from_outside_is_csv_and_of_bounded_size(photos, zip_of, tmp_path, monkeypatch):
    pq.write_table(pa.table({"path": ["00.jpg"], "target": [1.0]}), tmp_path / "t.parquet")
    with pytest.raises(BadDataset, match="sent as CSV"):
        DatasetStore().add(zip_of(photos), move=True, table=tmp_path / "t.parquet")
    monkeypatch.setattr(tables_module, "MAX_BYTES", 100)
    with pytest.raises(BadDataset, match="at most"):
        open_dataset(zip_of(photos), table=tmp_path / "t.parquet")
