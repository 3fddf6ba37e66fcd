"""`python -m training.crop`: the pictures of a folder or archive, cut to what a detector finds.

The new archive has the same names, so that folders, patterns and tables go on to say labels and
targets. It is a step before training and no part of a model: serve a model of cut pictures with
pictures that are cut alike.
"""

import argparse
import io
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from imgcls import console, images
from imgcls.data.source import open_source
from imgcls.data.url_reader import open_reader
from imgcls.data.urls import Place, place
from imgcls.errors import BadDataset, BadImage
from training.detector import DEFAULT, PRETRAINED, Box, Pixels, load_detector

_QUALITY = 95
_AT_ONCE = 256
"""Entries that are read in one go."""


@dataclass(slots=True)
class Counts:
    cut: int = 0
    without: int = 0
    """Nothing was found in them; they are left out."""
    unreadable: int = 0


def crop(
    source: Place,
    target: Path,
    find: Callable[[Pixels], Box | None],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Counts:
    """Write to the zip `target` what `find` finds in the images of `source`.

    JPEGs stay JPEGs (quality 95); all others become PNGs. Raises `BadDataset` where `target` exists
    or nothing is found in any image, `BadArchive` for a broken source.
    """
    if target.exists():
        raise BadDataset(f"{target} exists already; give another name, or remove it.")
    counts = Counts()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".crop-", dir=target.parent) as work:
        opened = open_source(source, Path(work) / "unpacked.tar")
        entries = opened.listing.entries
        entries = entries.take(np.argsort(entries.offset, kind="stable"))
        draft = Path(work) / "draft.zip"
        written: set[str] = set()
        with (
            open_reader(opened.kind, opened.data) as reader,
            zipfile.ZipFile(draft, "x", zipfile.ZIP_STORED) as archive,
        ):
            for start in range(0, len(entries), _AT_ONCE):
                part = entries.take(slice(start, start + _AT_ONCE))
                for at, (data, _) in enumerate(reader.scan(part)):
                    if (cut := _cut(data, find, counts)) is not None:
                        name = _name(part.names[at])
                        if name in written:
                            raise BadDataset(f"Two images would both be called {name[:200]!r}.")
                        written.add(name)
                        archive.writestr(name, _encoded(cut, name))
                    if progress:
                        progress(start + at + 1, len(entries))
        if not counts.cut:
            raise BadDataset(
                f"Nothing was found in any of the {len(entries):,} images, of which "
                f"{counts.unreadable:,} cannot be read; lower --score, or name another --object."
            )
        os.replace(draft, target)
    return counts


def _cut(
    data: bytes | BadImage, find: Callable[[Pixels], Box | None], counts: Counts
) -> Pixels | None:
    try:
        if isinstance(data, BadImage):
            raise data
        pixels = images.decode(data)
    except BadImage:
        counts.unreadable += 1
        return None
    if (box := find(pixels)) is None:
        counts.without += 1
        return None
    counts.cut += 1
    left, top, right, bottom = box
    return pixels[top:bottom, left:right]


def _name(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return name if extension.lower() in ("jpg", "jpeg", "png") else f"{stem}{dot}png"


def _encoded(pixels: Pixels, name: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if name.lower().endswith(".png"):
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """0 where the archive was written, 1 where it was not."""
    args = _parser().parse_args(argv)
    console.use_json(args.json)
    return console.exit_code(lambda: _crop(args))


def _crop(args: argparse.Namespace) -> None:
    source = place(args.data)
    if args.out.exists():
        raise BadDataset(f"{args.out} exists already; give another name, or remove it.")
    detector = load_detector(args.detector, args.weights, args.object)
    with console.Stages() as stages:
        counts = crop(
            source,
            args.out,
            lambda pixels: detector.find(pixels, least=args.score, margin=args.margin),
            progress=lambda done, total: stages.count("looking", done, total),
        )
    if args.json:
        console.show_json(
            {
                "out": str(args.out),
                "images": counts.cut,
                "without": counts.without,
                "unreadable": counts.unreadable,
            }
        )
        return
    console.show(
        f"{args.out}: {console.plural(counts.cut, 'image')}; left out {counts.without:,} without a "
        f"{args.object} and {counts.unreadable:,} that cannot be read"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.crop", description=__doc__)
    parser.add_argument("data", help="a folder, a zip or tar of images")
    parser.add_argument("out", type=Path, help="the zip to be written")
    parser.add_argument("--object", default="person", help="a category of COCO (default: person)")
    parser.add_argument("--detector", default=DEFAULT, help=f"of torchvision (default: {DEFAULT})")
    parser.add_argument("--weights", default=PRETRAINED, help="coco, or the path of a state dict")
    parser.add_argument("--score", type=float, default=0.5, help="least score of a find")
    parser.add_argument("--json", action="store_true", help="print the counts or a refusal as JSON")
    parser.add_argument("--margin", type=float, default=0.05, help="share of the sides to add")
    return parser


if __name__ == "__main__":
    sys.exit(main())
