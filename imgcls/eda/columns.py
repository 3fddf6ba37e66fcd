"""Columns: the index of a dataset as arrays, for fast statistics of many groups."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from imgcls.data.columns import brightness, codes, floats, positions
from imgcls.images import FORMATS

if TYPE_CHECKING:
    import pyarrow as pa


class Columns:
    """A row an image file, in the order of the index."""

    def __init__(self, index: "pa.Table") -> None:
        def numbers(name: str) -> npt.NDArray[np.int64]:
            filled = index[name].fill_null(0).to_numpy()
            return np.asarray(filled).astype(np.int64)

        self.readable: npt.NDArray[np.bool_] = index["error"].is_null().to_numpy()
        self.width, self.height = numbers("width"), numbers("height")
        self.pixels = self.width * self.height
        self.aspect = self.width / np.maximum(self.height, 1)
        self.file_size = numbers("bytes")
        self.brightness = brightness(index)
        self.blur = floats(index["blur"])
        self.sums = [numbers(f"sum_{channel}") for channel in "rgb"]
        self.squares = [numbers(f"sumsq_{channel}") for channel in "rgb"]
        self.format = positions(index["format"], FORMATS)
        # Contents as numbers: images with equal bytes have equal ones.
        self.content = codes(index["content_hash"])
