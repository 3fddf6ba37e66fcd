"""Samples: some images of each class as small pictures, and all of them as one contact sheet.

What is shown is bounded, however many classes and images there are, and the same for the same
arguments.
"""

import io
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from imgcls import images
from imgcls.data.layout import SPLITS
from imgcls.errors import BadArgument, BadImage
from imgcls.settings import usable_cores

if TYPE_CHECKING:
    from imgcls.data import Dataset

MAX_CLASSES = 40
"""Classes shown at most: the largest."""
MAX_COUNT = 20
"""Images of a class at most."""
SIDE = 96
"""Longest side of a small picture, in pixels."""
_LARGE = {"width": 4_000, "height": 4_000, "bytes": 16 * 2**20}
"""Images above one of these are read one at a time: their pixels must not add up in memory."""
_one_at_a_time = Lock()
_TARGET_BINS = 8
_GAP, _NAME_WIDTH, _FONT = 6, 190, 14
_NAME_CHARS = 24
_INK, _PALE, _MISSING = "#1d2330", "#525b6b", "#dde1e8"


@dataclass(frozen=True, slots=True)
class Strip:
    """Images of one class, or with targets of one range."""

    name: str
    rows: list[int]
    """Of the index: those chosen."""
    total: int
    """Readable images that these were chosen from."""


def choose(
    dataset: "Dataset",
    *,
    label: str | None = None,
    split: str | None = None,
    count: int = 8,
    seed: int = 0,
) -> list[Strip]:
    """`count` random images of each class (of `label` alone), in the order of their paths.

    Of a regression, of each range of targets. `split` leaves out the others. Raises `BadArgument`.
    """
    chosen = [dataset.rows(name) for name in (SPLITS if split is None else (split,))]
    rows = np.sort(np.concatenate(chosen))
    if dataset.task == "regression":
        if label is not None:
            raise BadArgument(f"{dataset.tag} has targets and no classes; leave out the label.")
        groups = _ranges(dataset, rows)
    else:
        groups = _classes(dataset, rows, label)
    draw = np.random.default_rng(seed)
    strips = []
    for name, members in groups:
        picked = draw.choice(members, min(count, len(members)), replace=False)
        strips.append(Strip(name, sorted(picked.tolist()), len(members)))
    return strips


def thumbnails(dataset: "Dataset", rows: Sequence[int], side: int = SIDE) -> list[Image.Image]:
    """Small pictures of some rows, at most `side` pixels wide and high; of smaller images each
    pixel becomes a square of them. An image that cannot be read is a grey square."""

    def one(row: int) -> Image.Image:
        large = any((dataset.index[name][row].as_py() or 0) > _LARGE[name] for name in _LARGE)
        try:
            with _one_at_a_time if large else nullcontext():
                pixels = images.decode(dataset.read(row), min_size=(side, side))
        except BadImage:
            return Image.new("RGB", (side, side), _MISSING)
        picture = Image.fromarray(pixels)
        picture.thumbnail((side, side))
        times = side // max(picture.size)
        size = (picture.width * times, picture.height * times)
        return picture if times == 1 else picture.resize(size, Image.Resampling.NEAREST)

    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(one, rows))


def sheet(dataset: "Dataset", strips: Sequence[Strip], columns: int) -> bytes:
    """A PNG of all strips, below each other, with their names; `columns` pictures a line."""
    pictures = iter(thumbnails(dataset, [row for strip in strips for row in strip.rows]))
    step = SIDE + _GAP
    lines = [max(1, -(-len(strip.rows) // columns)) for strip in strips]
    size = (_NAME_WIDTH + columns * step + _GAP, max(1, sum(lines)) * step + _GAP)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    font, written = _font()
    top = _GAP
    for strip, height in zip(strips, lines, strict=True):
        name = written(strip.name)
        name = name if len(name) <= _NAME_CHARS else name[: _NAME_CHARS - 3] + "..."
        draw.text((_GAP, top), name, _INK, font)
        draw.text((_GAP, top + _FONT + 6), f"{strip.total:,} images", _PALE, font)
        for at in range(len(strip.rows)):
            picture = next(pictures)
            left = _NAME_WIDTH + at % columns * step + (SIDE - picture.width) // 2
            over = top + at // columns * step + (SIDE - picture.height) // 2
            canvas.paste(picture, (left, over))
        top += height * step
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _font() -> tuple[Any, Callable[[str], str]]:
    """A font for names, and what makes names writable with it: Pillow's own, which is always
    there, knows ASCII alone."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", _FONT - 1), str
    except OSError:
        return ImageFont.load_default(_FONT), _plain


def _plain(name: str) -> str:
    """Without accents, and with question marks for what is left that ASCII lacks."""
    letters = unicodedata.normalize("NFKD", name)
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return bare.encode("ascii", "replace").decode()


def _classes(
    dataset: "Dataset", rows: npt.NDArray[np.int64], label: str | None
) -> list[tuple[str, npt.NDArray[np.int64]]]:
    codes = dataset.targets(rows)
    if label is not None and label not in dataset.labels:
        there = ", ".join(dataset.labels)[:600]
        raise BadArgument(f"{dataset.tag} has no class {label[:60]!r}; there are: {there}.")
    counts = np.bincount(codes, minlength=len(dataset.labels))
    largest = np.argsort(-counts, kind="stable")[:MAX_CLASSES]
    shown = sorted(largest.tolist()) if label is None else [dataset.labels.index(label)]
    return [(dataset.labels[code], rows[codes == code]) for code in shown]


def _ranges(
    dataset: "Dataset", rows: npt.NDArray[np.int64]
) -> list[tuple[str, npt.NDArray[np.int64]]]:
    """Ranges of the target with about equally many images."""
    if not len(rows):
        return []
    targets = dataset.targets(rows)
    edges = np.unique(np.quantile(targets, np.linspace(0, 1, _TARGET_BINS + 1)))
    bins = np.clip(np.searchsorted(edges, targets, side="right") - 1, 0, max(0, len(edges) - 2))
    found = []
    for code in np.unique(bins).tolist():
        members = targets[bins == code]
        name = f"{members.min():.4g} to {members.max():.4g}"
        found.append((name, rows[bins == code]))
    return found
