"""What counting costs a request: microseconds of each step, beside Prometheus' own observations.

    python -m benchmarks.observing

The best of five rounds, one thread, nothing else: no server, no model.
"""

import asyncio
import os
import tempfile
import time
import timeit
from collections.abc import Callable
from typing import Any

ROUNDS, CALLS = 5, 50_000


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="imgcls-") as folder:
        # Before prometheus_client is imported: it writes files only if it finds this then.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        for what, cost in _costs().items():
            print(f"{what:<56} {cost:6.2f} us")


def _costs() -> dict[str, float]:
    import prometheus_client

    from imgcls.logs import Requests, note
    from imgcls.metrics import REQUEST_SECONDS, Metrics

    metrics = Metrics()
    tallies = metrics.model("tiny:1")
    histogram = prometheus_client.Histogram(
        "of_prometheus", "", ["model"], buckets=REQUEST_SECONDS, registry=None
    ).labels("tiny:1")
    counter = prometheus_client.Counter("one", "", ["model"], registry=None).labels("tiny:1")

    def one_request() -> None:
        """What `Predictor` and `Watched` count for one image alone in its batch."""
        tallies.decode_seconds.add(time.monotonic() - time.monotonic())
        tallies.batch_images.add(1)
        tallies.inference_seconds.add(time.monotonic() - time.monotonic())
        tallies.request_seconds.add(time.monotonic() - time.monotonic())
        tallies.confidence.add(0.93)

    def publish() -> None:
        one_request()
        metrics.publish(active="tiny:1", waiting={"tiny:1": 0}, drift={"tiny:1": 0.1})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    plain = asyncio.run(_per_request(app))
    return {
        "count one request of one image": _per_call(one_request),
        "the same by Histogram.observe, five times": 5 * _per_call(lambda: histogram.observe(0.02)),
        "and Counter.inc": _per_call(counter.inc),
        "publish, a few times a second": _per_call(publish),
        "request id": asyncio.run(_per_request(Requests(app))) - plain,
        "fields for the access log": _per_call(lambda: note(model="tiny:1", images=1)),
    }


def _per_call(function: Callable[[], object]) -> float:
    return min(timeit.repeat(function, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


async def _per_request(app: Any) -> float:
    scope = {"type": "http", "path": "/predict", "method": "POST", "headers": [(b"host", b"x")]}

    async def send(message: Any) -> None:
        pass

    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            await app(scope, None, send)
        rounds.append(time.perf_counter() - started)
    return min(rounds) / CALLS * 1e6


if __name__ == "__main__":
    main()
