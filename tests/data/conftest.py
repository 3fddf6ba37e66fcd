"""Small real image files, as folders and as archives."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgcls.data import scan as scan_module
from imgcls.settings import get_settings

Files = dict[str, bytes]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set `IMGCLS_*` settings for one test."""

    def change(**values: int) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"IMGCLS_{name.upper()}", str(value))
        get_settings.cache_clear()

    return change


def _picture(seed: int, size: tuple[int, int] = (12, 10), fmt: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, fmt)
    return buffer.getvalue()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """Encoded noise: a different image for every seed; `size` is (width, height)."""
    return _picture


@pytest.fixture
def pets() -> Files:
    """Two classes of ten images, without splits."""
    return {
        f"{label}/{n:02d}.jpg": _picture(100 * k + n)
        for k, label in enumerate(("cat", "dog"))
        for n in range(10)
    }


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., Path]:
    def write(files: Files, name: str = "pets") -> Path:
        root = tmp_path / "folders" / name
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        return root

    return write


@pytest.fixture
def zip_of(tmp_path: Path) -> Callable[..., Path]:
    def write(files: Files, name: str = "pets.zip", method: int = zipfile.ZIP_DEFLATED) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            for path, data in files.items():
                archive.writestr(path, data)
        return tmp_path / name

    return write


@pytest.fixture
def tar_of(tmp_path: Path) -> Callable[..., Path]:
    def write(
        files: Files, name: str = "pets.tar", mode: str = "w", kind: int = tarfile.PAX_FORMAT
    ) -> Path:
        with tarfile.open(tmp_path / name, mode, format=kind) as archive:
            for path, data in files.items():
                member = tarfile.TarInfo(path)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return tmp_path / name

    return write


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of images that `measure` was asked for."""
    counts: list[int] = []
    measure = scan_module.measure

    def count(reader: Any, entries: Any, *others: Any) -> Any:
        counts.append(len(entries))
        return measure(reader, entries, *others)

    monkeypatch.setattr(scan_module, "measure", count)
    return counts
