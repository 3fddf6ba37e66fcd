"""Extracting: a graph over the images of a dataset on a Ray cluster, a row of numbers each.

What training does on one machine with `iter_pixels` and a graph, in the same batches. The graph
travels; the images are read where they lie.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from imgcls import images
from imgcls.card import Preprocessing
from imgcls.data import Dataset
from imgcls.data.entries import Kind
from imgcls.data.url_reader import open_reader
from imgcls.data.urls import Place
from imgcls.engine import Floats, graph_runner
from imgcls.errors import BadDataset, BadImage
from imgcls.scale.chunks import Shared, mapped, shared

CHUNK = 256
"""Images in one piece of work; a multiple of the images that run together."""


@dataclass(frozen=True, slots=True)
class _Piece:
    names: list[str]
    places: list[tuple[Any, ...]]
    """What `Reader.read` takes."""


def extract(
    dataset: Dataset, graph: bytes, rows: npt.NDArray[np.int64], preprocessing: Preprocessing
) -> Iterator[Floats]:
    """`float32 [k, ...]` of `rows`, in their order, some at a time; called while connected.

    It is the first output of an ONNX graph that takes `uint8 [n, H, W, 3]`. Raises `BadDataset`
    for an image that cannot be decoded, and what `mapped` does.
    """
    pieces = [
        _Piece([dataset.name(row) for row in part], [dataset.where(row) for row in part])
        for part in (rows[at : at + CHUNK].tolist() for at in range(0, len(rows), CHUNK))
    ]
    yield from mapped(
        _extract,
        pieces,
        kind=dataset.kind,
        path=dataset.path,
        graph=shared(graph),
        preprocessing=preprocessing,
    )


def _extract(
    piece: _Piece, kind: Kind, path: Place, graph: Shared, preprocessing: Preprocessing
) -> Floats:
    pixels = []
    with open_reader(kind, path) as reader:
        for name, place in zip(piece.names, piece.places, strict=True):
            try:
                pixels.append(images.load(reader.read(*place), preprocessing))
            except BadImage as err:
                raise BadDataset(f"{name} cannot be decoded: {err}") from err
    found: Floats = _runner(graph)(np.stack(pixels))
    return found


@lru_cache(maxsize=1)
def _runner(graph: Shared) -> Any:
    """Loaded once in each process of the cluster."""
    return graph_runner(graph.get(), threads=1)
