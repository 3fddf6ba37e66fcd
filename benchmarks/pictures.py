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
        buffer = io.BytesIO()
        part.save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
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


def _from_zip(source: Path, count: int, seed: int) -> Iterator[bytes]:
    with zipfile.ZipFile(source) as archive:
        names = sorted(n for n in archive.namelist() if n.lower().endswith(JPEG_NAMES))
        for name in random.Random(seed).sample(names, min(count, len(names))):
            yield archive.read(name)
