"""Arrays that are computed once, kept on disk, and memory-mapped when they are read.

The cache lies in `$IMGCLS_HOME/cache/features`, a `.npy` file per key. A key covers all that the
numbers depend on, so a file is never out of date; deleting the folder costs time only.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from imgcls.files import scratch
from imgcls.settings import get_settings
from training.versions import versions

Floats = npt.NDArray[np.float32]

_SOFTWARE = ("torch", "torchvision", "timm", "onnxruntime", "scikit-learn", "numpy")
_DECODERS = ("pillow", "simplejpeg")


def key(config: list[Any], hashes: Iterable[str | None]) -> str:
    """The key of what is made of images with these content hashes, by this configuration."""
    told = json.dumps([config, versions(*_SOFTWARE, *_DECODERS)])
    digest = hashlib.sha256(told.encode())
    for value in hashes:
        digest.update(f"{value}\n".encode())
    return digest.hexdigest()


def stored(name: str, shape: tuple[int, ...], fill: Callable[[Floats], None]) -> Floats:
    """The `float32` array of a key, mapped copy-on-write.

    Where there is none, or one that was cut short, `fill` writes it: straight into the file, so
    that its length costs no memory.
    """
    folder = get_settings().home / "cache" / "features"
    path = folder / f"{name}.npy"
    found = _read(path, shape)
    if found is not None:
        return found
    with scratch(folder, ".tmp-") as work:
        array = open_memmap(work / path.name, mode="w+", dtype=np.float32, shape=shape)
        fill(array)
        array.flush()
        del array
        with (work / path.name).open("rb") as file:
            os.fsync(file.fileno())
        os.replace(work / path.name, path)
    return open_memmap(path, mode="c")


def _read(path: Path, shape: tuple[int, ...]) -> Floats | None:
    try:
        found: Floats = open_memmap(path, mode="c")
    except (FileNotFoundError, ValueError):
        return None
    return found if found.shape == shape else None
