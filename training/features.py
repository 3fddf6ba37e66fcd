"""Features of a frozen backbone: computed once a split, kept on disk, memory-mapped when read.

The cache lies in `$IMGCLS_HOME/cache/features`, a `.npy` file per key. The key covers all that
the numbers depend on, so a file is never out of date; deleting the folder costs time only.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.format import open_memmap

from imgcls.card import Preprocessing
from imgcls.files import scratch
from imgcls.settings import get_settings
from training.backbones import Backbone
from training.loader import Progress, Rows, Source, iter_pixels
from training.networks import Normalise
from training.versions import versions

Floats = npt.NDArray[np.float32]


class HashedSource(Source, Protocol):
    def content_hash(self, row: int) -> str | None: ...


def features(
    backbone: Backbone,
    source: HashedSource,
    rows: Rows,
    preprocessing: Preprocessing,
    *,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Floats:
    """`float32 [n, dim]` of `rows`, in their order, without augmentation.

    Read from the cache where it has them: the backbone does not run then. The array is mapped
    copy-on-write.
    """
    folder = get_settings().home / "cache" / "features"
    path = folder / f"{_key(backbone, source.content_hash, rows, preprocessing)}.npy"
    stored = _read(path)
    if stored is None:
        _write(path, _compute(backbone, source, rows, preprocessing, device, progress))
        stored = open_memmap(path, mode="c")
    if progress:
        progress(1.0)
    return stored


def _read(path: Path) -> Floats | None:
    """None where there is no file, or one that was cut short."""
    try:
        return open_memmap(path, mode="c")
    except (FileNotFoundError, ValueError):
        return None


def _write(path: Path, found: Floats) -> None:
    with scratch(path.parent, ".tmp-") as work:
        with (work / path.name).open("wb") as file:
            np.save(file, found)
            file.flush()
            os.fsync(file.fileno())
        os.replace(work / path.name, path)


@torch.inference_mode()
def _compute(
    backbone: Backbone,
    source: Source,
    rows: Rows,
    preprocessing: Preprocessing,
    device: torch.device | None,
    progress: Progress | None,
) -> Floats:
    device = device or torch.device("cpu")
    normalise = Normalise(backbone.mean, backbone.std).to(device)
    body = backbone.body.to(device).to(memory_format=torch.channels_last).eval()
    found = np.empty((len(rows), backbone.dim), np.float32)
    done = 0
    try:
        for chunk in iter_pixels(source, rows, preprocessing):
            images = torch.from_numpy(chunk).to(device)
            found[done : done + len(chunk)] = body(normalise(images)).float().cpu().numpy()
            done += len(chunk)
            if progress:
                progress(done / len(rows))
    finally:
        body.cpu()
    return found


def _key(
    backbone: Backbone,
    content_hash: Callable[[int], str | None],
    rows: Rows,
    preprocessing: Preprocessing,
) -> str:
    digest = hashlib.sha256(
        json.dumps(
            [
                backbone.library,
                backbone.name,
                backbone.weights_hash,
                backbone.mean,
                backbone.std,
                preprocessing.model_dump(),
                versions("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg"),
            ]
        ).encode()
    )
    for row in rows:
        digest.update(f"{content_hash(int(row))}\n".encode())
    return digest.hexdigest()
