"""Predicting: a model over any number of files on a Ray cluster, as `offline.predict` does on one.

The model travels to the nodes and passes the gate on each; the files must be there under the same
path, or be read from a URL. Batches are cut as on one machine, so the answers are the same.
"""

import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from imgcls import offline
from imgcls.engine import Engine, gate
from imgcls.errors import BadDataset
from imgcls.offline import Answers, Inputs, Part
from imgcls.scale.chunks import mapped

CHUNK_FILES = 1_024
"""Files in one piece of work, rounded to whole batches."""


def predict(
    engine: Engine,
    inputs: Inputs,
    *,
    batch: int = 64,
    top_k: int | None = None,
    threshold: float | None = None,
) -> Iterator[Answers]:
    """As `offline.predict`, answer by answer; called while connected.

    Raises `BadArgument`, `BadDataset` where a node does not see the files, and what `mapped` does.
    """
    import ray

    engine.card.check_options(top_k, threshold)
    chunks = list(_chunks(inputs, max(1, CHUNK_FILES // batch) * batch))
    model = _Model(engine.card.graph_sha256, ray.put(_files(engine.folder)))
    options = {"batch": batch, "top_k": top_k, "threshold": threshold}
    for answers in mapped(_predict, chunks, model=model, options=options):
        yield from answers


@dataclass(frozen=True)
class _Model:
    """What a node needs to load the model; equal where the graph is."""

    key: str
    files: Any
    """Reference to a `dict[str, bytes]` on the cluster."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Model) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def _files(folder: Path) -> dict[str, bytes]:
    """The model's folder without what only people read."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "report"
    }


def _chunks(inputs: Inputs, size: int) -> Iterator[list[Part]]:
    """All parts in lists of `size` files, the last one perhaps shorter."""
    chunk: list[Part] = []
    room = size
    for part in inputs.parts(size):
        while len(part) > room:
            head, part = part.cut(room)
            yield [*chunk, head]
            chunk, room = [], size
        chunk.append(part)
        room -= len(part)
        if room == 0:
            yield chunk
            chunk, room = [], size
    if chunk:
        yield chunk


def _predict(chunk: list[Part], model: _Model, options: dict[str, Any]) -> list[Answers]:
    for part in chunk:
        if not part.place.exists():
            raise BadDataset(
                f"The node {platform.node()} does not see {part.place}; put the files where every "
                "node of the cluster has them under the same path, or give a URL."
            )
    items = (item for part in chunk for item in part.items())
    return list(offline.predict(_engine(model), items, threads=1, **options))


@lru_cache(maxsize=1)
def _engine(model: _Model) -> Engine:
    """Loaded once in each process of the cluster."""
    import ray

    with tempfile.TemporaryDirectory(prefix="imgcls-") as name:
        for path, data in ray.get(model.files).items():
            (Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / path).write_bytes(data)
        return gate(Path(name), threads=1)
