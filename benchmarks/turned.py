"""Photos turned by a known angle: a regression whose truth nobody has to guess.

    python -m benchmarks.turned clothing.zip turned.zip

Writes a zip of the photos turned by 0 to 90 degrees; a name says by how much, as a rate of 0 to
10, with votes, in the pattern of the score system.
"""

import argparse
import io
import math
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

PATTERN = "{id}_{gender}_{country}_{rate}_{votes}"
LARGEST = 90.0
"""Degrees; all angles are as likely."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Turn photos by angles that their names tell.")
    parser.add_argument("photos", type=Path, help="a zip of photos")
    parser.add_argument("out", type=Path, help="the zip to write")
    parser.add_argument("--count", type=int, help="photos to take (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write(arguments.photos, arguments.out, count=arguments.count, seed=arguments.seed)


def write(photos: Path, out: Path, *, count: int | None = None, seed: int = 0) -> None:
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in turned(photos, count=count, seed=seed):
            archive.writestr(name, data)


def turned(photos: Path, *, count: int | None = None, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Names and JPEGs. Of a picture the square is kept that all angles of it share, so that no
    corner gives the angle away."""
    draw = random.Random(seed)
    with zipfile.ZipFile(photos) as archive:
        names = sorted(n for n in archive.namelist() if n.lower().endswith((".jpg", ".jpeg")))
        for number, name in enumerate(draw.sample(names, min(count or len(names), len(names)))):
            angle = draw.uniform(0, LARGEST)
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            buffer = io.BytesIO()
            _turn(image, angle).save(buffer, "JPEG", quality=90)
            who, votes = draw.choice("mw"), draw.randint(5, 50)
            rate = 10 * angle / LARGEST
            yield f"{number:05d}_{who}_xx_{rate:.3f}_{votes}.jpg", buffer.getvalue()


def _turn(image: Image.Image, angle: float) -> Image.Image:
    """Clockwise, by degrees."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    inner = int(side / math.sqrt(2))
    edge = (side - inner) // 2
    return square.rotate(-angle, Image.Resampling.BILINEAR).crop(
        (edge, edge, edge + inner, edge + inner)
    )


if __name__ == "__main__":
    main()
