"""Real pictures to send, as encoded JPEGs.

They come from a folder or a zip that the caller names, or else are cut out of the two photographs
that scikit-learn carries with it, so that nothing has to be downloaded.
"""

import importlib.util
import io
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

JPEG_NAMES = (".jpg", ".jpeg")
PHOTO_BYTES = 110_000
"""About the mean of ImageNet's photos."""
PHOTO_SIDE = 640
"""Longest side of a photo in pixels; with it the quality comes to 90 and more, as cameras have."""


def photographs() -> list[Image.Image]:
    """scikit-learn's two bundled photographs, 640 x 427; the package itself is not imported."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise SystemExit("The photographs are scikit-learn's: install imgcls[train].")
    folder = Path(spec.origin).parent / "datasets" / "images"
    return [Image.open(folder / name).convert("RGB") for name in ("china.jpg", "flower.jpg")]


def cut(width: int, height: int, count: int, *, seed: int = 0) -> list[bytes]:
    """`count` different JPEGs of `width` x `height` pixels (quality 90) out of the photographs.

    Small pictures show a scaled-down part, so that they look like pictures and not like texture;
    sizes above the photographs' own are scaled up.
    """
    draw = random.Random(seed)
    originals = photographs()
    files = []
    for index in range(count):
        photo = originals[index % len(originals)]
        aspect = width / height
        high = draw.uniform(0.4, 1.0) * min(photo.height, photo.width / aspect)
        wide = high * aspect
        left, top = draw.uniform(0, photo.width - wide), draw.uniform(0, photo.height - high)
        box = (left, top, left + wide, top + high)
        part = photo.resize((width, height), Image.Resampling.LANCZOS, box=box)
        files.append(_encoded(part, 90))
    return files


def read(source: Path, count: int, *, seed: int = 0) -> list[bytes]:
    """`count` JPEG files out of a folder or a zip, drawn with a seed."""
    if source.is_dir():
        paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in JPEG_NAMES)
        chosen = random.Random(seed).sample(paths, min(count, len(paths)))
        files = [path.read_bytes() for path in chosen]
    else:
        files = list(_from_zip(source, count, seed))
    if not files:
        raise SystemExit(f"There are no JPEG files in {source}.")
    return files


def photos(source: Path | None, count: int, *, seed: int = 0) -> list[bytes]:
    """`count` different JPEGs of about 110 KB and at most 640 x 640 pixels.

    They are the pictures in `source` (a folder or a zip), scaled up or down; without one, parts of
    the photographs.
    """
    if source is None:
        files = cut(PHOTO_SIDE, PHOTO_SIDE * 3 // 4, count, seed=seed)
    else:
        files = read(source, count, seed=seed)
    return [_as_photo(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]


def squares(source: Path | None, side: int, count: int, *, seed: int = 0) -> list[bytes]:
    """`count` different JPEGs of `side` x `side` pixels, from where `photos` takes its own."""
    if source is None:
        return cut(side, side, count, seed=seed)
    files = read(source, count, seed=seed)
    opened = (Image.open(io.BytesIO(file)).convert("RGB") for file in files)
    return [_encoded(image.resize((side, side), Image.Resampling.LANCZOS), 90) for image in opened]


def _as_photo(image: Image.Image) -> bytes:
    """The JPEG of the highest quality that is no larger than a photo should be."""
    scale = PHOTO_SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    low, high = 1, 100
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if len(_encoded(image, middle)) <= PHOTO_BYTES else (low, middle - 1)
        )
    return _encoded(image, low)


def _encoded(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _from_zip(source: Path, count: int, seed: int) -> Iterator[bytes]:
    with zipfile.ZipFile(source) as archive:
        names = sorted(n for n in archive.namelist() if n.lower().endswith(JPEG_NAMES))
        for name in random.Random(seed).sample(names, min(count, len(names))):
            yield archive.read(name)
