"""Offline: a model over any number of image files, without a server.

Files are read and decoded in threads while the graph works; only a few batches are ever in memory,
so that millions of files need no more than hundreds. A file that cannot be read becomes an answer
with an error and disturbs no other. Where answers are written is
`cli/answers.py`'s business.
"""

import glob
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from imgcls import images
from imgcls.card import ModelCard
from imgcls.data.entries import MAX_IMAGE_BYTES, NO_CRC, Entries, Kind, is_image, is_litter
from imgcls.data.source import Source, open_source
from imgcls.data.summary import ARCHIVE_SUFFIXES
from imgcls.data.url_reader import open_reader
from imgcls.data.urls import Place, Url, is_url, list_one, place
from imgcls.engine import Engine, Floats, verdicts
from imgcls.errors import BadArgument, BadImage, BrokenImage, ImageTooLarge, out_of_reach
from imgcls.prediction import no_number, score
from imgcls.settings import usable_cores

Read = Callable[[], bytes]
Item = tuple[str, Read]
"""A name to show, and how to get the bytes; that may raise `BadImage`."""

_PART = 1_024
"""Files of one input whose names are held at once."""
_LARGE = 256 * 2**10
"""Mean bytes of an archive's files from which on each is read by itself."""
_AHEAD = 3
"""Batches that are decoded while one is in the graph."""


@dataclass(frozen=True, slots=True)
class Answers:
    """A batch of answers, in the order of the files. Lists have length N."""

    paths: list[str]
    errors: list[str | None]
    labels: list[str | None]
    """None, as all that follow, where there is an error, and in a regression."""
    probability: list[float | None]
    """Of the label."""
    abstained: list[bool | None]
    """None too where the model never abstains."""
    probabilities: Floats
    """`float32 [N, C]`; NaN where there is an error, or where `top_k` left a class out."""
    scores: list[float | None]
    """Of a regression alone."""
    intervals: list[tuple[float, float] | None]
    """None too where the model gives none."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the images of one input, in a form that can be sent to another process."""

    names: list[str]
    """To show."""
    place: Place
    """The input, as an absolute path or URL: what must be there to read the images."""
    files: list[str]
    """Absolute paths of image files; empty for an archive and a URL."""
    kind: Kind = "folder"
    entries: Entries | None = None
    """Of an archive, in the order in which they lie there; of what is behind a URL."""

    def __len__(self) -> int:
        return len(self.names)

    def cut(self, count: int) -> "tuple[Part, Part]":
        """The first `count` images, and the rest."""
        return self._take(slice(0, count)), self._take(slice(count, len(self)))

    def items(self) -> Iterator[Item]:
        """The images one by one; an archive is open meanwhile. Raises `BadDataset`."""
        if self.entries is None:
            for name, file in zip(self.names, self.files, strict=True):
                yield name, lambda file=file: _read(file)  # type: ignore[misc]
            return
        if len(self) and self.entries.packed.mean() > _LARGE:
            # Whoever decodes one reads it, or many would wait in memory; neighbours gain nothing.
            for at, name in enumerate(self.names):
                entry = self.entries.take(slice(at, at + 1))
                yield name, partial(_alone, self.kind, self.place, entry)
            return
        with open_reader(self.kind, self.place) as reader:
            if self.entries.locations is not None:  # single files: whoever decodes one fetches it
                for name, location in zip(self.names, self.entries.locations, strict=True):
                    yield name, partial(reader.read, 0, 0, 0, 0, NO_CRC, location)
                return
            for name, (data, _) in zip(self.names, reader.scan(self.entries), strict=True):
                yield name, lambda data=data: _given(data)  # type: ignore[misc]

    def _take(self, rows: slice) -> "Part":
        entries = None if self.entries is None else self.entries.take(rows)
        return Part(self.names[rows], self.place, self.files[rows], self.kind, entries)


class Inputs:
    """Files, folders (with all below them), glob patterns and archives, as a stream of images.

    Use as a context manager. Raises `BadArgument` for what is not there, `BadDataset` for an
    archive that cannot be read. Only the names in one folder at a time are held.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths: list[Place] = [
            Url(found.rstrip("/")) if is_url(found) else Path(found)
            for path in paths
            for found in _expand(path)
        ]
        self._listed: dict[Place, Source] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="imgcls-")
        try:
            for number, path in enumerate(dict.fromkeys(self._paths)):
                unpacked = Path(self._scratch.name) / f"{number}.tar"
                if isinstance(path, Url) and is_image(path.name) and not path.is_dir():
                    self._listed[path] = Source("folder", path, path.parent, "", list_one(path))
                elif isinstance(path, Url) or (
                    path.is_file() and path.name.lower().endswith(ARCHIVE_SUFFIXES)
                ):
                    self._listed[path] = open_source(path, unpacked)
        except BaseException:
            self._scratch.cleanup()
            raise

    def __enter__(self) -> "Inputs":
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def count(self) -> int:
        """How many images there are, without opening any."""
        return sum(
            len(source.listing.entries)
            if (source := self._listed.get(path))
            else sum(1 for _ in _walk(str(path)))
            for path in self._paths
        )

    def __iter__(self) -> Iterator[Item]:
        for part in self.parts(_PART):
            yield from part.items()

    def parts(self, size: int) -> Iterator[Part]:
        """The same images in the same order, at most `size` of one input at a time."""
        for path in self._paths:
            if (source := self._listed.get(path)) is not None:
                yield from _unpack(path, source, size)
                continue
            files = _walk(str(path))
            while names := list(islice(files, size)):
                yield Part(names, place(str(path)), [os.path.abspath(name) for name in names])


def predict(
    engine: Engine,
    items: Iterable[Item],
    *,
    batch: int = 64,
    top_k: int | None = None,
    threshold: float | None = None,
    threads: int | None = None,
) -> Iterator[Answers]:
    """Answers for all items, in their order, at most `batch` at a time.

    `threshold` replaces that of a model of two classes. Raises `BadArgument`.
    """
    engine.card.check_options(top_k, threshold)
    waiting: deque[tuple[list[str], list[Future[images.Pixels | BadImage]]]] = deque()
    source = iter(items)
    with ThreadPoolExecutor(threads or usable_cores(), "decode") as pool:
        try:
            while True:
                while len(waiting) <= _AHEAD and (chunk := list(islice(source, batch))):
                    decoded = [pool.submit(_load, read, engine.card) for _, read in chunk]
                    waiting.append(([path for path, _ in chunk], decoded))
                if not waiting:
                    return
                paths, futures = waiting.popleft()
                pixels = [future.result() for future in futures]
                yield _answer(engine, paths, pixels, top_k, threshold)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _answer(
    engine: Engine,
    paths: list[str],
    pixels: Sequence[images.Pixels | BadImage],
    top_k: int | None,
    threshold: float | None,
) -> Answers:
    card = engine.card
    pictures = [p for p in pixels if not isinstance(p, BadImage)]
    good = [i for i, picture in enumerate(pixels) if not isinstance(picture, BadImage)]
    count = len(paths)
    made = Answers(
        paths=paths,
        errors=[p.message if isinstance(p, BadImage) else None for p in pixels],
        labels=[None] * count,
        probability=[None] * count,
        abstained=[None] * count,
        probabilities=np.full((count, len(card.labels)), np.nan, np.float32),
        scores=[None] * count,
        intervals=[None] * count,
    )
    if not good:
        return made
    rows = engine.answers(np.stack(pictures))
    sound = np.isfinite(rows).reshape(len(rows), -1).all(1)
    for i in np.array(good)[~sound].tolist():
        made.errors[i] = no_number(card).message
    good, rows = np.array(good)[sound].tolist(), rows[sound]
    if card.task == "regression":
        for i, value in zip(good, rows.tolist(), strict=True):
            found = score(card, value)
            made.scores[i], made.intervals[i] = found["score"], found.get("interval")
        return made
    limit = card.threshold if threshold is None else threshold
    chosen = verdicts(rows, limit).tolist()
    for i, row, verdict in zip(good, rows, chosen, strict=True):
        probability = float(row[verdict])
        made.labels[i], made.probability[i] = card.labels[verdict], round(probability, 6)
        if card.abstain_below is not None:
            made.abstained[i] = probability < card.abstain_below
    if top_k is not None and top_k < rows.shape[1]:
        dropped = np.argsort(-rows, axis=1, kind="stable")[:, top_k:]
        rows = rows.copy()
        np.put_along_axis(rows, dropped, np.nan, axis=1)
    made.probabilities[good] = rows
    return made


def _load(read: Read, card: ModelCard) -> images.Pixels | BadImage:
    try:
        return images.load(read(), card.preprocessing)
    except BadImage as err:
        return err


def _expand(path: str) -> list[str]:
    if is_url(path):
        return [path]
    path = os.path.expanduser(path)
    if os.path.exists(path):
        return [path]
    if glob.has_magic(path) and (found := sorted(glob.iglob(path, recursive=True))):
        # A folder that a pattern like `**` matched brings its files by itself.
        return [name for name in found if not os.path.isdir(name)] or found
    what = "no file matches" if glob.has_magic(path) else "there is no file or folder"
    raise BadArgument(f"Nothing to predict: {what} {path!r}; check the path.")


def _walk(path: str) -> Iterator[str]:
    """The file itself, or the image files under a folder in the order of their names."""
    if not os.path.isdir(path):
        yield path
        return

    def refused(err: OSError) -> None:
        raise out_of_reach(err.filename, err) from err

    for folder, folders, files in os.walk(path, onerror=refused):
        folders[:] = sorted(name for name in folders if not is_litter(name))
        for name in sorted(files):
            if is_image(name) and not is_litter(name):
                yield os.path.join(folder, name)


def _read(path: str) -> bytes:
    try:
        if not os.path.isfile(path):  # a pipe would never end
            raise BrokenImage("The file is gone, or is not a regular file.")
        if (size := os.path.getsize(path)) > MAX_IMAGE_BYTES:
            raise ImageTooLarge(f"The file has {size >> 20:,} MiB; that is no image to classify.")
        with open(path, "rb") as file:
            return file.read()
    except OSError as err:
        raise BrokenImage(f"The file cannot be read: {err.strerror}.") from err


def _unpack(path: Place, source: Source, size: int) -> Iterator[Part]:
    order = np.argsort(source.listing.entries.offset, kind="stable")
    for start in range(0, len(order), size):
        entries = source.listing.entries.take(order[start : start + size])
        names = [f"{path}/{name}" for name in entries.names]
        if source.data != path and source.kind == "folder":
            names = [str(path)]
        yield Part(names, source.data, [], source.kind, entries)


def _alone(kind: Kind, path: Place, entry: Entries) -> bytes:
    with open_reader(kind, path) as reader:
        [(data, _)] = reader.scan(entry)
    return _given(data)


def _given(data: bytes | BadImage) -> bytes:
    if isinstance(data, BadImage):
        raise data
    return data
