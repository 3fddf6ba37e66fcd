"""Chunks: a function over pieces of work on the cluster, through Ray Data, results in order.

A chunk whose node dies is done again elsewhere, and so is one whose result died with it.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from imgcls.errors import BY_CODE, Conflict, ImgclsError
from imgcls.scale.cluster import silent


@dataclass(frozen=True)
class Shared:
    """A value on the cluster, fetched where it is needed; equal where the value is."""

    digest: str
    reference: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shared) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def get(self) -> Any:
        import ray

        return ray.get(self.reference)


def shared(value: bytes) -> Shared:
    """Put a value on the cluster, once for all chunks; called while connected."""
    import ray

    return Shared(hashlib.blake2b(value, digest_size=20).hexdigest(), ray.put(value))


Chunk = TypeVar("Chunk")
Result = TypeVar("Result")


def mapped(work: Callable[..., Result], chunks: Sequence[Chunk], **given: Any) -> Iterator[Result]:
    """`work(chunk, **given)` of every chunk, one core each, in the order of the chunks.

    Called while connected. Few results are held at once. What `work` raises of `ImgclsError` is
    raised here; `Conflict` where the cluster fails.
    """
    import ray
    from ray.exceptions import RayError

    if not chunks:
        return
    rows = [{"sealed": _Sealed(chunk)} for chunk in chunks]
    with silent():
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        dataset.context.execution_options.preserve_order = True
        done = dataset.map(partial(_done, work, given), num_cpus=1)
    try:
        for row in done.iter_rows():
            found: _Sealed = row["sealed"]
            if found.refusal is not None:
                raise BY_CODE[found.refusal["code"]](found.refusal["error"])
            yield found.value
    except RayError as err:
        told = " ".join(str(_first(err)).split())[-300:]
        raise Conflict(f"The Ray cluster could not finish the work: {told}") from err


@dataclass(frozen=True, slots=True)
class _Sealed:
    """Keeps Ray Data from turning what is in it into columns."""

    value: Any = None
    refusal: dict[str, Any] | None = None


def _done(
    work: Callable[..., Any], given: dict[str, Any], row: dict[str, _Sealed]
) -> dict[str, _Sealed]:
    try:
        return {"sealed": _Sealed(work(row["sealed"].value, **given))}
    except ImgclsError as err:  # as a value: Ray would log it, with what is around it
        return {"sealed": _Sealed(refusal=err.to_dict())}


def _first(err: BaseException) -> BaseException:
    """What was raised first."""
    while err.__cause__ is not None:
        err = err.__cause__
    return err
