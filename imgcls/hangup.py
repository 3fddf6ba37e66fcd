"""A request whose client has gone is not worked on any longer.

Only requests that wait are watched: an answer that comes at once costs a timer and nothing else.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from imgcls.errors import BadArgument

_WATCH_AFTER = 0.1
"""Seconds without an answer after which a request's connection is watched."""


@contextlib.contextmanager
def dropped_if_gone(receive: Callable[[], Awaitable[Any]]) -> Iterator[None]:
    """Cancel what the current task does in this block once the client has hung up.

    `receive` is the ASGI channel of the request, whose body has been read. Cancelling reaches
    whatever the block awaits, so that images that wait for a decoder or a batch leave the queue
    unrun. Raises `BadArgument` then, which nobody is there to read.
    """
    task = asyncio.current_task()
    assert task is not None
    watcher: asyncio.Task[None] | None = None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    def begin() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(watch())

    timer = asyncio.get_running_loop().call_later(_WATCH_AFTER, begin)
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise BadArgument("The client went away before it was answered.") from None
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
