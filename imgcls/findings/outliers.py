"""Outliers: images that are tiny, blank, very dark, blurred or of an odd shape beside the others.

Whether such an image is a fault is for a person to say, so that only blank and tiny ones come with
a fix, and only the clearest with a high confidence.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from imgcls.data.columns import brightness, floats
from imgcls.findings.types import Finding, Fix, Kind

if TYPE_CHECKING:
    import pyarrow as pa

    from imgcls.data import Dataset

Floats = npt.NDArray[np.float64]

_FEW = 10
"""Images below which there are no others to compare with."""
_TINY = 32
"""Pixels of the shorter side; above, a picture is of use, however large the others are."""


def find_outliers(dataset: "Dataset") -> Iterator[Finding]:
    """A finding for each image and kind of oddness."""
    index = dataset.index.filter(dataset.index["error"].is_null())
    if not len(index):
        return
    looks = _Looks(index)
    yield from _blank(looks)
    if len(index) >= _FEW:
        yield from _tiny(looks)
        yield from _odd_aspect(looks)
        yield from _dark(looks)
        yield from _blurred(looks)


class _Looks:
    def __init__(self, index: "pa.Table") -> None:
        self.path = index["path"]
        self.width, self.height = floats(index["width"]), floats(index["height"])
        pixels = (self.width * self.height)[:, None]
        mean = np.stack([index[f"sum_{c}"].to_numpy() for c in "rgb"], axis=1) / pixels
        squares = np.stack([index[f"sumsq_{c}"].to_numpy() for c in "rgb"], axis=1) / pixels
        self.grey = brightness(index)
        self.spread: Floats = np.sqrt(np.maximum(squares - mean**2, 0)).max(axis=1)
        self.blur = floats(index["blur"])

    def findings(
        self,
        kind: Kind,
        confidence: Floats,
        facts: Floats,
        message: str,
        drop: npt.NDArray[np.bool_] | None = None,
    ) -> Iterator[Finding]:
        """Of the images with a confidence above 0; `message` has room for their fact, and `drop`
        says which ones have a fix."""
        for row in np.flatnonzero(confidence > 0).tolist():
            path = self.path[row].as_py()
            yield Finding(
                kind=kind,
                paths=[path],
                confidence=round(float(confidence[row]), 3),
                message=message.format(float(facts[row])),
                fix=Fix(action="drop", paths=[path]) if drop is not None and drop[row] else None,
            )


def _blank(looks: _Looks) -> Iterator[Finding]:
    sure = np.interp(looks.spread, [0, 2, 4], [1, 0.95, 0.6], right=0)
    message = "The picture is blank: its channels deviate by {:.1f} of 255."
    return looks.findings("blank", sure, looks.spread, message, drop=sure > 0)


def _tiny(looks: _Looks) -> Iterator[Finding]:
    side = np.minimum(looks.width, looks.height)
    # Pictures of digits are 8 x 8 and no outliers among others of their size.
    share = side / np.median(side)
    sure = np.interp(share, [0.05, 0.125, 0.25], [0.95, 0.9, 0.6], right=0)
    message = f"The shorter side is {{:.0f}} px, where {np.median(side):.0f} px are usual."
    small = side <= _TINY
    return looks.findings("tiny", np.where(small, sure, sure - 0.1), side, message, drop=small)


def _odd_aspect(looks: _Looks) -> Iterator[Finding]:
    aspect = np.maximum(looks.width, looks.height) / np.minimum(looks.width, looks.height)
    sure = np.interp(aspect / np.median(aspect), [3, 5, 10], [0.5, 0.8, 0.95], left=0)
    message = f"One side is {{:.1f}} times the other, where {np.median(aspect):.1f} is usual."
    return looks.findings("odd_aspect", sure, aspect, message)


def _dark(looks: _Looks) -> Iterator[Finding]:
    sure = np.interp(looks.grey, [2, 10, 25], [0.95, 0.85, 0.5], right=0)
    if np.median(looks.grey) < 60:  # stars at night
        return iter(())
    return looks.findings("dark", sure, looks.grey, "The mean grey is {:.0f} of 255.")


def _blurred(looks: _Looks) -> Iterator[Finding]:
    usual = np.nanmedian(looks.blur) if np.isfinite(looks.blur).any() else 0.0
    if usual <= 0:
        return iter(())
    # A blank picture is not sharp either, and is named already.
    share = np.where((looks.spread > 4) & np.isfinite(looks.blur), looks.blur / usual, 1)
    sure = np.interp(share, [0.005, 0.05], [0.8, 0.5], right=0)
    message = f"Edges are weak: sharpness {{:.0f}}, where {usual:.0f} is usual."
    return looks.findings("blurred", sure, looks.blur, message)
