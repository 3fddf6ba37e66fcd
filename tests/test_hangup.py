"""What nobody waits for any more is not run: proved with sockets that are closed early."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from imgcls.errors import BadArgument
from imgcls.hangup import dropped_if_gone
from tests.conftest import Server, start_server
from tests.fakes import jpeg, tiny_model

BOUNDARY = "hangup-boundary"
SIDE = 96


def test_work_is_cancelled_when_the_client_hangs_up_and_not_before() -> None:
    async def main() -> None:
        gone = asyncio.Event()
        cancelled: list[str] = []

        async def receive() -> dict[str, str]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def work(seconds: float, name: str) -> str:
            try:
                with dropped_if_gone(receive):
                    await asyncio.sleep(seconds)
            except BadArgument:
                cancelled.append(name)
            return name

        assert await work(0.25, "answered") == "answered"
        waiting = asyncio.create_task(work(30, "gone"))
        await asyncio.sleep(0.25)
        assert cancelled == []
        gone.set()
        assert await asyncio.wait_for(waiting, 5) == "gone"
        assert cancelled == ["gone"]
        assert waiting.cancelling() == 0

    asyncio.run(main())


def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def main() -> None:
        async def receive() -> dict[str, str]:
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        async def work() -> None:
            with dropped_if_gone(receive):
                await asyncio.sleep(30)

        task = asyncio.create_task(work())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def slow_graph(path: Path) -> None:
    """The tiny graph with large convolutions before it, whose result is added as zero: an image
    takes tens of milliseconds."""
    model = onnx.load(path)
    graph = model.graph
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((48, 48, 7, 7)).astype(np.float32) / 50
    first = rng.standard_normal((48, 3, 7, 7)).astype(np.float32) / 50
    tensors = [("first", first), ("weight", weight), ("nothing", np.zeros(1, np.float32))]
    graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in tensors)
    add = next(node for node in graph.node if node.op_type == "Add")
    graph.node.remove(add)
    softmax = next(node for node in graph.node if node.op_type == "Softmax")
    graph.node.remove(softmax)
    pads: dict[str, Any] = {"pads": [3, 3, 3, 3]}
    graph.initializer.append(helper.make_tensor("over", TensorProto.INT64, [3], [1, 2, 3]))
    graph.node.extend(
        [
            helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["planes", "first"], ["c0"], **pads),
            *(
                helper.make_node("Conv", [f"c{n}", "weight"], [f"c{n + 1}"], **pads)
                for n in range(4)
            ),
            helper.make_node("ReduceMean", ["c4", "over"], ["level"], keepdims=0),
            helper.make_node("Mul", ["level", "nothing"], ["zero"]),
            helper.make_node("Unsqueeze", ["zero", "last"], ["zeros"]),
            helper.make_node("Add", ["picked", "bias"], ["plain"]),
            helper.make_node("Add", ["plain", "zeros"], ["logits"]),
            softmax,
        ]
    )
    graph.initializer.append(helper.make_tensor("last", TensorProto.INT64, [1], [1]))
    onnx.checker.check_model(model)
    onnx.save(model, path)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Server]:
    """A server whose model takes tens of milliseconds an image and runs them one at a time."""
    server = start_server(
        tmp_path / "slow", IMGCLS_MAX_BATCH="1", IMGCLS_THREADS="64", IMGCLS_MAX_QUEUE="400"
    )
    try:
        tag = tiny_model(tmp_path / "m", server.registry, size=SIDE, change=slow_graph)
        httpx.post(f"{server.url}/set", json={"tag": tag}, timeout=60).raise_for_status()
        yield server
    finally:
        server.stop()


def send(server: Server, count: int) -> socket.socket:
    """Send one `/predict` of `count` images and do not wait for the answer."""
    parts = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{n}.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode()
        + jpeg()
        + b"\r\n"
        for n in range(count)
    )
    body = parts + f"--{BOUNDARY}--\r\n".encode()
    head = (
        f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.sendall(head.encode() + body)
    return connection


def images_run(server: Server) -> float:
    """Images that the engine has run, as the metrics count them."""
    lines = httpx.get(f"{server.url}/metrics", timeout=60).text.splitlines()
    found = [line for line in lines if line.startswith("imgcls_batch_images_sum")]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def test_images_of_a_closed_connection_are_not_run(slow: Server) -> None:
    before = images_run(slow)
    connections = [send(slow, 100) for _ in range(3)]
    time.sleep(0.5)
    for connection in connections:
        connection.close()
    began = time.monotonic()
    answer = httpx.post(
        f"{slow.url}/predict", files=[("images", ("a.jpg", jpeg(), "image/jpeg"))], timeout=60
    )
    waited = time.monotonic() - began
    assert answer.json()["predictions"][0]["label"] == "red"
    time.sleep(0.5)
    ran = images_run(slow) - before
    assert 1 <= ran < 150, f"{ran} of 301 images ran"
    assert waited < 5


def test_beyond_the_queue_requests_are_refused_at_once_and_told_when_to_return(
    slow: Server,
) -> None:
    full = [send(slow, 200), send(slow, 200)]
    time.sleep(0.4)
    began = time.monotonic()
    refused = httpx.post(
        f"{slow.url}/predict", files=[("images", ("a.jpg", jpeg(), "image/jpeg"))], timeout=60
    )
    assert (refused.status_code, json.loads(refused.text)["code"]) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert time.monotonic() - began < 3
    for connection in full:
        with contextlib.suppress(OSError):
            connection.close()
