"""Chunks: a function over pieces of work on the cluster, through Ray Data, results in order.

A chunk whose node dies is done again elsewhere, and so is one whose result died with it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from imgcls.errors import BY_CODE, Conflict, ImgclsError
from imgcls.scale.cluster import silent

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
    rows = [{"chunk": chunk} for chunk in chunks]
    with silent():
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        dataset.context.execution_options.preserve_order = True
        done = dataset.map(partial(_done, work, given), num_cpus=1)
    try:
        for row in done.iter_rows():
            if (refusal := row["refusal"]) is not None:
                raise BY_CODE[refusal["code"]](refusal["error"])
            yield row["result"]
    except RayError as err:
        told = " ".join(str(_first(err)).split())[-300:]
        raise Conflict(f"The Ray cluster could not finish the work: {told}") from err


def _done(work: Callable[..., Any], given: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": work(row["chunk"], **given), "refusal": None}
    except ImgclsError as err:  # as a value: Ray would log it, with what is around it
        return {"result": None, "refusal": err.to_dict()}


def _first(err: BaseException) -> BaseException:
    """What was raised first."""
    while err.__cause__ is not None:
        err = err.__cause__
    return err
