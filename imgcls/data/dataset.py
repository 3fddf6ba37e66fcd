"""Dataset: labelled images opened for reading, with their index and their splits.

Immutable. Where datasets are kept is `store.py`'s business; what is in an image, `images.py`'s.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from imgcls.card import DatasetLineage
from imgcls.data.entries import Kind
from imgcls.data.index import with_splits
from imgcls.data.layout import SPLITS
from imgcls.data.reader import Reader
from imgcls.errors import BadArgument, BadDataset

Rows = npt.NDArray[np.int64]


class Dataset:
    """Rows are row numbers of `index`, one an image file, in path order.

    Threads may share a dataset. It can be pickled: the copy opens the source anew.
    """

    def __init__(
        self, tag: str, labels: Sequence[str], index: pa.Table, kind: Kind, path: Path, seed: int
    ) -> None:
        """`index` as stored, without splits. Raises `BadDataset` where the source is gone."""
        self.tag = tag
        """`name:version`; the version is the hash of the content."""
        self.labels = list(labels)
        """Class names, sorted."""
        self.seed = seed
        self.kind, self.path = kind, path
        self._stored = index
        self.index: pa.Table = with_splits(index, self.labels, seed)
        """Columns: path, label, split, given_split, format, width, height, bytes, content_hash,
        phash, sum_r, sum_g, sum_b, sumsq_r, sumsq_g, sumsq_b, error, and where the bytes lie."""
        codes = {label: code for code, label in enumerate(self.labels)}
        self._targets = np.array(
            [codes.get(label, -1) for label in self.index["label"].to_pylist()], np.int64
        )
        readable = self.index["error"].is_null().to_numpy()
        split = self.index["split"].to_numpy()
        self._rows = {name: np.flatnonzero(readable & (split == name)) for name in SPLITS}
        self._places = [
            self.index[name].to_pylist()
            for name in ("offset", "packed", "size", "method", "crc", "location")
        ]
        self._reader = Reader(kind, path)

    def __len__(self) -> int:
        """Image files, unreadable ones included."""
        return len(self._targets)

    def __repr__(self) -> str:
        return f"Dataset({self.tag!r}, {len(self)} images, {len(self.labels)} classes)"

    def rows(self, split: str) -> Rows:
        """`int64 [n]`: the readable images of `train`, `val` or `test`, ascending."""
        if split not in self._rows:
            raise BadArgument(f"There is no split {split!r}; there are: {', '.join(SPLITS)}.")
        return self._rows[split].copy()

    def read(self, row: int) -> bytes:
        """The encoded image of a row. Thread-safe. Raises `BadImage`."""
        offset, packed, size, method, crc, location = (column[row] for column in self._places)
        return self._reader.read(offset, packed, size, method, crc, location)

    def name(self, row: int) -> str:
        """The path of a row's file inside the source."""
        return str(self.index["path"][int(row)].as_py())

    def targets(self, rows: npt.ArrayLike) -> Rows:
        """`int64 [n]`: positions in `labels`; -1 for a class without any readable image."""
        return self._targets[np.asarray(rows, dtype=np.int64)]

    def content_hash(self, row: int) -> str | None:
        """BLAKE2b-160 of the encoded image, hex; None where its bytes could not be read."""
        value: str | None = self.index["content_hash"][int(row)].as_py()
        return value

    def check_trainable(self) -> None:
        """Raises `BadDataset` where a split is empty or there are not two classes to tell apart."""
        counts = ", ".join(f"{name} {len(rows):,}" for name, rows in self._rows.items())
        for split, rows in self._rows.items():
            if len(rows) == 0:
                raise BadDataset(
                    f"{self.tag} has no readable image in its {split} split ({counts}), and a "
                    "model needs some in each: three different images of each class are enough for "
                    f"that, or a folder `{split}`."
                )
        if len(np.unique(self.targets(self._rows["train"]))) < 2:
            raise BadDataset(
                f"The training images of {self.tag} are all of one class; a classifier needs two. "
                "Put the images of each class into a folder of its own."
            )

    def lineage(self) -> DatasetLineage:
        """What a model card says of the data it was trained on; readable images only."""
        splits = {name: len(rows) for name, rows in self._rows.items()}
        return DatasetLineage(
            tag=self.tag, images=sum(splits.values()), splits=splits, seed=self.seed
        )

    def close(self) -> None:
        """Let go of the source; reading ends, the index stays."""
        self._reader.close()

    def __enter__(self) -> "Dataset":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset, (self.tag, self.labels, self._stored, self.kind, self.path, self.seed)
