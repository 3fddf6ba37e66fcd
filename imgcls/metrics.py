"""What Prometheus sees of one worker: counted in plain numbers, published a few times a second.

BentoML's `/metrics` adds up the files that `prometheus_client` keeps for each worker (its
multiprocess mode). One observation there costs some microseconds, and a request makes several;
counting in a list costs a tenth of that. `publish`, a few times a second, writes what has changed.
"""

import contextlib
import glob
import os
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Histogram

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
WORK_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5,
)  # fmt: skip
BATCH_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
SCORE = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)

HISTOGRAMS = {
    "request_seconds": "Seconds from the images being read to their answer.",
    "decode_seconds": "Seconds to decode one image, waiting for a decode thread included.",
    "batch_images": "Images that ran together.",
    "inference_seconds": "Seconds to run one batch.",
    "confidence": "Probability of the label of one answer.",
    "score": "Score of one answer, from 0 to 1 of the model's range.",
}
"""Fields of `ModelTallies`, as they are published: `imgcls_` goes before each name."""


class Tally:
    """A histogram in plain numbers. One thread at a time may add while another reads."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value; a bucket holds what is at most its bound, as in Prometheus."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class ModelTallies:
    """What one worker has seen of one model."""

    request_seconds: Tally = field(default_factory=lambda: Tally(REQUEST_SECONDS))
    decode_seconds: Tally = field(default_factory=lambda: Tally(WORK_SECONDS))
    batch_images: Tally = field(default_factory=lambda: Tally(BATCH_IMAGES))
    inference_seconds: Tally = field(default_factory=lambda: Tally(WORK_SECONDS))
    confidence: Tally = field(default_factory=lambda: Tally(CONFIDENCE))
    score: Tally = field(default_factory=lambda: Tally(SCORE))
    abstentions: int = 0
    """Answers whose label is not probable enough."""


class Metrics:
    """Everything that one worker counts. Models are labelled by their tags.

    `registry` is for tests: under BentoML the values reach `/metrics` through files.
    """

    def __init__(self, registry: "CollectorRegistry | None" = None) -> None:
        # BentoML wants this imported after it has named the folder of the workers' files.
        import prometheus_client as prometheus

        from imgcls.metric_files import reserve_room

        reserve_room()
        _forget_dead_workers()
        bounds = ModelTallies()
        self._histograms = {
            name: prometheus.Histogram(
                f"imgcls_{name}",
                text,
                ["model"],
                buckets=getattr(bounds, name).bounds,
                registry=registry,
            )
            for name, text in HISTOGRAMS.items()
        }
        self._requests = prometheus.Counter(
            "imgcls_requests", "Requests answered by a model.", ["model"], registry=registry
        )
        self._abstentions = prometheus.Counter(
            "imgcls_abstentions",
            "Answers of which the model is not sure enough.",
            ["model"],
            registry=registry,
        )
        self._refusals = prometheus.Counter(
            "imgcls_refusals", "Refused requests and images.", ["code"], registry=registry
        )
        self._queue = prometheus.Gauge(
            "imgcls_queue_images",
            "Images that wait for a batch.",
            ["model"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._active = prometheus.Gauge(
            "imgcls_active_model",
            "Workers in which this model is the active one.",
            ["model"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._drift = prometheus.Gauge(
            "imgcls_drift_score",
            "Mean absolute standardised difference of embeddings from those of training; the "
            "largest of the workers.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._models: dict[str, ModelTallies] = {}
        self._refused: Counter[str] = Counter()
        self._published: dict[tuple[str, str], _Published] = {}
        self._published_abstentions: Counter[str] = Counter()
        self._published_refusals: Counter[str] = Counter()
        self._published_active: str | None = None
        self._published_queues: set[str] = set()

    def model(self, tag: str) -> ModelTallies:
        """The tallies of a loaded model; the same ones when it is loaded again."""
        return self._models.setdefault(tag, ModelTallies())

    def refused(self, code: str) -> None:
        self._refused[code] += 1

    def publish(
        self, *, active: str | None, waiting: Mapping[str, int], drift: Mapping[str, float]
    ) -> None:
        """Write what has changed since the last call where `/metrics` finds it.

        `active` is the tag of the active model; `waiting` and `drift` are the images in the queue
        and the score of each loaded model, by its tag.
        """
        for tag, tallies in self._models.items():
            for name, histogram in self._histograms.items():
                tally: Tally = getattr(tallies, name)
                published = self._published.get((tag, name))
                if published is None:
                    if not any(tally.counts):
                        continue
                    published = self._published[tag, name] = _Published(histogram.labels(tag))
                new = published.update(tally)
                if new and name == "request_seconds":
                    self._requests.labels(tag).inc(new)
            if new := tallies.abstentions - self._published_abstentions[tag]:
                self._abstentions.labels(tag).inc(new)
                self._published_abstentions[tag] += new
        for code, count in self._refused.items():
            if new := count - self._published_refusals[code]:
                self._refusals.labels(code).inc(new)
                self._published_refusals[code] = count
        if active != self._published_active:
            if self._published_active is not None:
                self._active.labels(self._published_active).set(0)
            if active is not None:
                self._active.labels(active).set(1)
            self._published_active = active
        for tag in self._published_queues - waiting.keys():
            self._queue.labels(tag).set(0)
        for tag, images in waiting.items():
            self._queue.labels(tag).set(images)
        self._published_queues = set(waiting)
        for tag, score in drift.items():
            self._drift.labels(tag).set(score)


class _Published:
    """One series of a Prometheus histogram, and how much of its tally it has been told."""

    def __init__(self, series: "Histogram") -> None:
        self._buckets = series._buckets
        self._sum = series._sum
        self._counts = [0] * len(self._buckets)
        self._total = 0.0

    def update(self, tally: Tally) -> int:
        """Add what is new; returns how many values that were.

        `Histogram.observe` takes one value a call; these are the numbers that it would add to.
        """
        counts, total = list(tally.counts), tally.total
        if counts == self._counts:
            return 0
        for bucket, count, before in zip(self._buckets, counts, self._counts, strict=True):
            if count != before:
                bucket.inc(count - before)
        self._sum.inc(total - self._total)
        new = sum(counts) - sum(self._counts)
        self._counts, self._total = counts, total
        return new


@lru_cache
def get_metrics() -> Metrics:
    """The metrics of this process, made at the first call."""
    return Metrics()


def _forget_dead_workers() -> None:
    """Drop the gauges of workers that were killed; BentoML does so only for those that end."""
    from prometheus_client.multiprocess import mark_process_dead

    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for path in glob.glob(os.path.join(folder, "gauge_live*_*.db")) if folder else []:
        pid = int(re.findall(r"\d+", os.path.basename(path))[-1])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            with contextlib.suppress(FileNotFoundError):  # another worker was quicker
                mark_process_dead(pid)  # type: ignore[no-untyped-call]
        except PermissionError:  # somebody else's process has the number now
            continue
