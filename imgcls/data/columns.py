"""Columns of an index as numpy arrays: what numbers cannot say becomes numbers."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]


def positions(column: pa.ChunkedArray, values: Sequence[str] | pa.Array) -> Ints:
    """Where each text of a column stands in `values`; -1 for those that do not."""
    found = pc.index_in(column, value_set=pa.array(values, pa.string())).fill_null(-1)
    return np.asarray(found.to_numpy()).astype(np.int64)


def codes(column: pa.ChunkedArray) -> Ints:
    """Equal numbers, from 0 on, for equal values; -1 for null."""
    return encoded(column)[0]


def encoded(column: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """`codes`, and the value that each of them stands for."""
    found = column.combine_chunks().dictionary_encode()
    numbers = np.asarray(found.indices.fill_null(-1).to_numpy()).astype(np.int64)
    return numbers, found.dictionary


def brightness(index: pa.Table) -> npt.NDArray[np.float64]:
    """Mean grey of each image, 0 to 255 (ITU-R BT.601); nan of those that cannot be read."""
    weights = {"sum_r": 0.299, "sum_g": 0.587, "sum_b": 0.114}
    grey = sum(weight * floats(index[name]) for name, weight in weights.items())
    mean: npt.NDArray[np.float64] = grey / (floats(index["width"]) * floats(index["height"]))
    return mean


def floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """nan for null."""
    values: npt.NDArray[np.float64] = column.cast(pa.float64()).fill_null(float("nan")).to_numpy()
    return values
