"""What a profile says, as types: the OpenAPI document needs these, and none of the arithmetic."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Rgb = tuple[float, float, float]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Range(_Frozen):
    """Of one number over the images of a group, each image counted once."""

    mean: float
    min: int
    max: int

    @classmethod
    def of(cls, values: "npt.NDArray[np.int64]") -> Self:
        """Of at least one value."""
        return cls(mean=float(values.mean()), min=int(values.min()), max=int(values.max()))


class Spread(_Frozen):
    """As `Range`, of what is no whole number."""

    mean: float
    min: float
    max: float

    @classmethod
    def of(cls, values: "npt.NDArray[np.float64]") -> Self:
        """Of at least one value."""
        return cls(mean=float(values.mean()), min=float(values.min()), max=float(values.max()))


class GroupStats(_Frozen):
    """One group of images: all, a split, a class, or a class within a split.

    Everything but `unreadable` is about readable images, upright (EXIF orientation applied). What
    cannot be computed of a group without readable images is null.
    """

    images: int
    """Readable images."""
    unreadable: int
    """Files that cannot be decoded."""
    duplicates: int
    """Images whose exact bytes another image of this group has already; the first is not one."""
    pixels: Range | None
    """Width x height of an image, in pixels."""
    width: Range | None
    """In pixels."""
    height: Range | None
    """In pixels."""
    aspect: Spread | None = None
    """Width / height."""
    brightness: Spread | None = None
    """Mean grey of an image, 0 (black) to 255 (white)."""
    blur: Spread | None = None
    """Variance of the Laplacian of an image's grey: low without sharp edges. Null for datasets that
    were added before it was measured."""
    mean_rgb: Rgb | None
    """Mean of R, G, B in 0-1 over all pixels of all images of the group: a large image weighs
    more than a small one. Alpha lies over white, grey counts as R = G = B."""
    std_rgb: Rgb | None
    """Population standard deviation of R, G, B in 0-1 over the same pixels. It is that of the
    pixels, not that of the images' means."""
    formats: dict[str, int]
    """Images by file format (`JPEG`, `PNG`, ...), the most frequent first."""
    bytes_total: int
    """File sizes together, encoded, in bytes."""
    bytes_mean: float | None
    """In bytes."""
    file_size: Range | None = None
    """Of an image, encoded, in bytes."""
    histograms: dict[str, list[int]] = {}
    """Images in each bin of `Profile.edges`, by the same names; none for a class within a split."""


@dataclass(slots=True)
class DuplicateFile:
    """No model, and not frozen, which both take time: a profile may list a million."""

    path: str
    """In the dataset."""
    label: str
    split: str


class DuplicateGroup(_Frozen):
    """Files with equal content hashes."""

    content_hash: str
    images: int
    """Files in the group, listed or not."""
    across_splits: bool
    """They lie in more than one split."""
    across_labels: bool
    """They carry different labels, or targets."""
    files: list[DuplicateFile]
    """In path order, the first 1,000."""


class Duplicates(_Frozen):
    total: int
    """Groups of two files and more."""
    images: int
    """Files that could go without losing a picture: those of all groups, less one a group."""
    across_splits: int
    """Groups that lie in more than one split."""
    across_labels: int
    """Groups with different labels, or targets."""
    groups: list[DuplicateGroup]
    """The first 1,000: first those with different labels, then those across splits, by path."""


class UnreadableImage(_Frozen):
    path: str
    """In the dataset."""
    code: str
    """Stable: `broken_image`, `unsupported_image`, `empty_image`, `image_too_large`."""
    reason: str
    """A sentence for people."""


class Unreadable(_Frozen):
    total: int
    images: list[UnreadableImage]
    """In path order, the first 1,000."""


class Size(_Frozen):
    width: int
    """In pixels."""
    height: int
    """In pixels."""
    images: int


class Sizes(_Frozen):
    total: int
    """Different sizes."""
    sizes: list[Size]
    """The 1,000 most frequent, the most frequent first."""


class TargetStats(_Frozen):
    """The targets of a regression, over its readable images, in their own units."""

    name: str
    images: int
    min: float
    max: float
    mean: float
    std: float
    """Population standard deviation."""
    median: float
    mae_of_median: float
    """Mean absolute error of answering the median: what a model must beat."""
    edges: list[float]
    """Of the histogram: one more than there are bins, all of the same width."""
    counts: dict[str, list[int]]
    """By split: images in each bin. A bin holds its lower edge; the last one both."""
    groups: dict[str, int]
    """Images by group, where there are groups."""


class Profile(_Frozen):
    """Of one dataset with the splits of one seed; see `GroupStats` for units.

    A regression has no classes: `labels`, `classes` and those of each split are empty.
    """

    schema_version: int = 1
    tag: str
    """`name:version` of the dataset."""
    seed: int
    """Decides the splits that the dataset does not state."""
    labels: list[str]
    """Classes with readable images, sorted."""
    overall: GroupStats
    splits: dict[str, GroupStats]
    """By `train`, `val`, `test`; all three are always there."""
    classes: dict[str, GroupStats]
    """By label, over all splits; classes without readable images are here too."""
    split_classes: dict[str, dict[str, GroupStats]]
    """By split, then by label: every split names every class."""
    edges: dict[str, list[float]] = {}
    """Of the histograms, the same for all groups, one more than there are bins: `width` and
    `height` (bins of one width), `pixels`, `aspect`, `file_size` and `blur` (of one ratio),
    `brightness` (0 to 255). A bin holds its lower edge; the last one both."""
    sizes: Sizes
    """Widths and heights that occur."""
    target: TargetStats | None = None
    """Of a regression."""
    duplicates: Duplicates
    unreadable: Unreadable
