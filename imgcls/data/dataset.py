"""Dataset: labelled images opened for reading, with their index and their splits.

Immutable. Where datasets are kept is `store.py`'s business; what is in an image, `images.py`'s.
"""

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imgcls.card import DatasetLineage
from imgcls.data.columns import positions
from imgcls.data.entries import Kind
from imgcls.data.index import PLACE
from imgcls.data.labelling import FOLDERS, Labelling
from imgcls.data.layout import SPLITS
from imgcls.data.url_reader import open_reader
from imgcls.data.urls import Place
from imgcls.errors import BadArgument, BadDataset

Rows = npt.NDArray[np.int64]


class Dataset:
    """Rows are row numbers of `index`, one an image file, in path order.

    Threads may share a dataset. It can be pickled: the copy opens the source anew.
    """

    def __init__(
        self,
        tag: str,
        labels: Sequence[str],
        index: pa.Table,
        kind: Kind,
        path: Place,
        seed: int,
        labelling: Labelling = FOLDERS,
        group: str | None = None,
    ) -> None:
        """`index` with the splits by `seed` (`index.with_splits`); of it the images of `group`,
        where that is given.

        Raises `BadDataset` where the source is gone, `BadArgument` for a group that is not there.
        """
        self.tag = tag
        """`name:version`; the version is the hash of the content."""
        self.labels = list(labels)
        """Class names, sorted; none of a regression."""
        self.seed = seed
        self.labelling, self.group = labelling, group
        self.kind, self.path = kind, path
        self._whole = index
        self.groups: list[str] = []
        """The values of the field that divides the images into groups, sorted."""
        if labelling.group is not None:
            self.groups = sorted(index["group"].unique().to_pylist())
        # The splits are those of all: a group has the same ones by itself and among the others.
        self.index: pa.Table = _only(index, group, self)
        """Columns: path, label, split, given_split, format, width, height, bytes, content_hash,
        phash, sum_r, sum_g, sum_b, sumsq_r, sumsq_g, sumsq_b, error, where the bytes lie, target,
        weight, group, blur, cells, twins."""
        self._targets: npt.NDArray[np.int64] | npt.NDArray[np.float32]
        if self.task == "regression":
            self._targets = self.index["target"].to_numpy().astype(np.float32)
        else:
            self._targets = positions(self.index["label"], self.labels)
        readable = self.index["error"].is_null().to_numpy()
        at = positions(self.index["split"], SPLITS)
        self._rows = {name: np.flatnonzero(readable & (at == n)) for n, name in enumerate(SPLITS)}
        self._reader = open_reader(kind, path)

    def __len__(self) -> int:
        """Image files, unreadable ones included."""
        return len(self._targets)

    def __repr__(self) -> str:
        return f"Dataset({self.tag!r}, {len(self)} images, {self.contents})"

    @property
    def task(self) -> Literal["classification", "regression"]:
        return self.labelling.task

    @property
    def target_name(self) -> str:
        """What the targets of a regression are, as the pattern or table calls it; else empty."""
        return self.labelling.target or ""

    @property
    def contents(self) -> str:
        """What the images have, for people: `3 classes`, `the target rate`."""
        if self.task == "regression":
            return f"the target {self.target_name}"
        return f"{len(self.labels)} classes"

    def rows(self, split: str) -> Rows:
        """`int64 [n]`: the readable images of `train`, `val` or `test`, ascending."""
        if split not in self._rows:
            raise BadArgument(f"There is no split {split!r}; there are: {', '.join(SPLITS)}.")
        return self._rows[split].copy()

    def view(self, **rows: npt.ArrayLike) -> "Dataset":
        """The same images with other `rows` in the splits that are named; `index` keeps its own.

        It shares the source: closing one closes both.
        """
        other = copy.copy(self)
        given = {name: np.asarray(part, dtype=np.int64) for name, part in rows.items()}
        for name in given:
            self.rows(name)
        other._rows = self._rows | given
        return other

    def read(self, row: int) -> bytes:
        """The encoded image of a row. Thread-safe. Raises `BadImage`."""
        return self._reader.read(*self.where(row))

    def where(self, row: int) -> tuple[Any, ...]:
        """Where the bytes of a row lie: what `Reader.read` takes."""
        return tuple(column[row] for column in self._places)

    @cached_property
    def _places(self) -> list[list[Any]]:
        return [self.index[field.name].to_pylist() for field in PLACE]

    def name(self, row: int) -> str:
        """The path of a row's file inside the source."""
        return str(self.index["path"][int(row)].as_py())

    def targets(self, rows: npt.ArrayLike) -> Any:
        """`int64 [n]`: positions in `labels`; -1 for a class without any readable image.

        Of a regression `float32 [n]`: the targets, in their own units.
        """
        return self._targets[np.asarray(rows, dtype=np.int64)]

    def weights(self, rows: npt.ArrayLike) -> npt.NDArray[np.float32] | None:
        """`float32 [n]`: what each image counts in training, by its field `weight`, 1 on average
        over the readable images; None where there is no such field."""
        given = self.index["weight"]
        if given.null_count:
            return None
        values = given.to_numpy()
        readable = self.index["error"].is_null().to_numpy()
        mean = values[readable].mean() or 1.0
        chosen: npt.NDArray[np.float32] = (values / mean).astype(np.float32)
        return chosen[np.asarray(rows, dtype=np.int64)]

    def content_hash(self, row: int) -> str | None:
        """BLAKE2b-160 of the encoded image, hex; None where its bytes could not be read."""
        value: str | None = self.index["content_hash"][int(row)].as_py()
        return value

    def picture(self, row: int) -> str | None:
        """The content hash that a row shares with all images that look the same."""
        value: str | None = self.index["twins"][int(row)].as_py()
        return value or self.content_hash(row)

    def check_trainable(self) -> None:
        """Raises `BadDataset` where a split is empty or there is nothing to tell apart."""
        called = self.tag if self.group is None else f"the group {self.group} of {self.tag}"
        counts = ", ".join(f"{name} {len(rows):,}" for name, rows in self._rows.items())
        for split, rows in self._rows.items():
            if len(rows) == 0:
                raise BadDataset(
                    f"There is no readable image of {called} in its {split} split ({counts}), and "
                    "a model needs some in each: three different images of each class are enough "
                    f"for that, or a folder `{split}`."
                )
        if len(np.unique(self.targets(self._rows["train"]))) < 2:
            if self.task == "regression":
                raise BadDataset(
                    f"The training images of {called} all have the same {self.target_name}; a "
                    "regression needs different ones."
                )
            raise BadDataset(
                f"The training images of {called} are all of one class; a classifier needs two. "
                "Put the images of each class into a folder of its own."
            )

    def lineage(self) -> DatasetLineage:
        """What a model card says of the data it was trained on; readable images only."""
        splits = {name: len(rows) for name, rows in self._rows.items()}
        read_as = self.labelling
        return DatasetLineage(
            tag=self.tag,
            images=sum(splits.values()),
            splits=splits,
            seed=self.seed,
            pattern=read_as.pattern,
            table=read_as.table,
            target=read_as.target,
            where=read_as.where,
            group=None if self.group is None else f"{read_as.group}=={self.group}",
            fix=read_as.fix,
        )

    def close(self) -> None:
        """Let go of the source; reading ends, the index stays."""
        self._reader.close()

    def __enter__(self) -> "Dataset":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        args = (
            self.tag,
            self.labels,
            self._whole,
            self.kind,
            self.path,
            self.seed,
            self.labelling,
            self.group,
        )
        return Dataset, args, {"_rows": self._rows}


def _only(index: pa.Table, group: str | None, dataset: Dataset) -> pa.Table:
    """The rows of one group, or all."""
    if group is None:
        return index
    if group not in dataset.groups:
        there = ", ".join(dataset.groups)[:300]
        raise BadArgument(
            f"{dataset.tag} has no group {group[:60]!r}; "
            + (f"there are: {there}." if there else "it was added without groups.")
        )
    return index.filter(pc.equal(index["group"], group))
