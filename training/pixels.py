"""Pixels of a whole dataset: decoded once, kept on disk, mapped into memory when they are read.

The cache lies in `$IMGCLS_HOME/cache/pixels`, a file of bare `uint8` for each dataset and size.
Its name covers all that the pixels depend on, so a file is never out of date. Those used longest
ago are removed where all would need more than `IMGCLS_PIXEL_CACHE_MB`. What is mapped costs no
memory that the system could not take back at once.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from imgcls.card import Preprocessing
from imgcls.data import Dataset
from imgcls.errors import StorageUnavailable
from imgcls.files import scratch
from imgcls.settings import get_settings
from training.loader import Pixels, Progress, iter_pixels
from training.versions import versions

Targets = npt.NDArray[np.int64] | npt.NDArray[np.float32]


class Batch(NamedTuple):
    images: Tensor
    """`uint8 [k, H, W, 3]`."""
    truth: Tensor
    """`[k]`: the targets."""
    counts: Tensor | None
    """`float32 [k]`: what each image counts."""


@dataclass(frozen=True, slots=True)
class Examples:
    """The images of one split, as rows of an array that all splits share."""

    pixels: Pixels
    """`uint8 [rows of the dataset, H, W, 3]`."""
    rows: npt.NDArray[np.int64]
    """`int64 [n]`."""
    targets: Targets
    """`[n]`: `int64` classes, or `float32` numbers."""
    counts: npt.NDArray[np.float32] | None = None
    """`[n]`: what each image counts in training, 1 on average; None where all count alike."""

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: npt.NDArray[np.int64]) -> Batch:
        """Copies of the images at these positions, in their order among all.

        The interpreter lock is let go while pages are read.
        """
        positions = np.sort(positions)
        rows = torch.from_numpy(self.rows[positions])
        return Batch(
            torch.from_numpy(self.pixels).index_select(0, rows),
            torch.from_numpy(self.targets[positions]),
            None if self.counts is None else torch.from_numpy(self.counts[positions]),
        )

    def batches(self, size: int) -> Iterator[Batch]:
        """All of them in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))))

    def some(self, count: int) -> Pixels:
        """At most `count` images, spread evenly."""
        return self.pixels[self.rows[:: max(1, -(-len(self) // count))]]


def decoded(
    dataset: Dataset, preprocessing: Preprocessing, *, progress: Progress | None = None
) -> Pixels:
    """`uint8 [len(dataset), height, width, 3]`: every readable image at its row.

    Rows of unreadable images are black. Mapped copy-on-write. Raises `BadDataset` for an image that
    cannot be decoded after all, `StorageUnavailable` where the disk is full.
    """
    shape = (len(dataset), preprocessing.height, preprocessing.width, 3)
    size = int(np.prod(shape, dtype=np.int64))
    path = get_settings().home / "cache" / "pixels" / f"{_key(dataset, preprocessing)}.u8"
    if not path.is_file() or path.stat().st_size != size:
        _make_room(path.parent, size)
        _write(dataset, preprocessing, path, size, progress)
    with contextlib.suppress(OSError):
        # By this the one that was used longest ago is known; the kernel's own clock moves in steps.
        os.utime(path, ns=(time.time_ns(),) * 2)
    if progress:
        progress(1.0)
    return np.memmap(path, np.uint8, "c", shape=shape)


def _write(
    dataset: Dataset,
    preprocessing: Preprocessing,
    path: Path,
    size: int,
    progress: Progress | None,
) -> None:
    rows = _readable(dataset)
    each = size // max(1, len(dataset))
    done = 0
    try:
        with scratch(path.parent, ".tmp-") as work:
            # Written, not mapped: on a full disk a mapping ends the process.
            with (work / path.name).open("wb") as file:
                file.truncate(size)
                for chunk in iter_pixels(dataset, rows, preprocessing):
                    for row, image in zip(rows[done:], chunk, strict=False):
                        file.seek(int(row) * each)
                        file.write(image.tobytes())
                    done += len(chunk)
                    if progress:
                        progress(done / len(rows))
            os.replace(work / path.name, path)
    except OSError as err:
        raise StorageUnavailable(
            f"The decoded images need {size / 1e6:,.0f} MB in {path.parent}, which cannot be "
            f"written ({err.strerror}): make room there, or choose a smaller image_size."
        ) from err


def _readable(dataset: Dataset) -> npt.NDArray[np.int64]:
    """Rows of the images that can be read, of all splits."""
    rows: npt.NDArray[np.int64] = np.flatnonzero(dataset.index["error"].is_null().to_numpy())
    return rows


def _key(dataset: Dataset, preprocessing: Preprocessing) -> str:
    needed = versions("numpy", "pillow", "simplejpeg")
    digest = hashlib.sha256(json.dumps([preprocessing.model_dump(), needed]).encode())
    for content in dataset.index["content_hash"].to_pylist():
        digest.update(f"{content}\n".encode())
    return digest.hexdigest()


def _make_room(folder: Path, size: int) -> None:
    """Remove what was used longest ago; who has it mapped still reads it."""
    budget = get_settings().pixel_cache_mb << 20
    found = []
    for path in folder.glob("*.u8"):
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    used = size + sum(known for _, known, _ in found)
    for _, known, path in sorted(found):
        if used <= budget:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        used -= known
