"""Predicting: a model over any number of files on a Ray cluster, as `offline.predict` does on one.

The model travels to the nodes and passes the gate on each; the files must be there under the same
path, or be read from a URL. Batches are cut as on one machine, so the answers are the same.
"""

import io
import platform
import tarfile
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from imgcls import offline
from imgcls.engine import Engine, gate
from imgcls.errors import BadDataset
from imgcls.offline import Answers, Inputs, Part
from imgcls.scale.chunks import Shared, mapped, shared

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
    engine.card.check_options(top_k, threshold)
    chunks = list(_chunks(inputs, max(1, CHUNK_FILES // batch) * batch))
    model = shared(_packed(engine.folder))
    options = {"batch": batch, "top_k": top_k, "threshold": threshold}
    for answers in mapped(_predict, chunks, model=model, options=options):
        yield from answers


def _packed(folder: Path) -> bytes:
    """The model's folder as a tar, without what only people read."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for path in sorted(folder.iterdir()):
            if path.name != "report":
                tar.add(path, path.name)
    return made.getvalue()


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


def _predict(chunk: list[Part], model: Shared, options: dict[str, Any]) -> list[Answers]:
    for part in chunk:
        if not part.place.exists():
            raise BadDataset(
                f"The node {platform.node()} does not see {part.place}; put the files where every "
                "node of the cluster has them under the same path, or give a URL."
            )
    items = (item for part in chunk for item in part.items())
    return list(offline.predict(_engine(model), items, threads=1, **options))


@lru_cache(maxsize=1)
def _engine(model: Shared) -> Engine:
    """Loaded once in each process of the cluster."""
    with tempfile.TemporaryDirectory(prefix="imgcls-") as name:
        with tarfile.open(fileobj=io.BytesIO(model.get())) as tar:
            tar.extractall(name, filter="data")
        return gate(Path(name), threads=1)
