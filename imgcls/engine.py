"""card + graph -> answers: one ONNX Runtime session, checked before it is trusted.

The engine knows nothing of requests, batches or the store. It serves every kind of model, since
all of them are one graph with the same input and outputs: the `probabilities` of a classification
or the `score` of a regression, and an `embedding`.
"""

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from imgcls import images
from imgcls.card import GOLDEN_DIR, GOLDEN_FILE, GRAPH_FILE, GoldenSet, ModelCard, graph_sha256
from imgcls.errors import BadImage, BadModel, GateFailed
from imgcls.settings import get_settings, usable_cores

Floats = npt.NDArray[np.float32]
_RUN = 32
"""Images that `graph_runner` runs together."""


class Engine:
    """A loaded model. `load` is the way in; threads may share it."""

    def __init__(
        self, folder: Path, card: ModelCard, session: ort.InferenceSession, threads: int
    ) -> None:
        self.folder = folder
        self.card = card
        self._session = session
        self._output = answer_name(card)
        self.on_cpu: bool = session.get_providers()[0] == "CPUExecutionProvider"
        self.parallel = side_by_side(threads) if self.on_cpu else 1
        """Runs that pay side by side."""
        self.seconds = 0.0
        """What one image took by itself when `warm_up` measured it."""

    @classmethod
    def load(cls, folder: Path, *, threads: int | None = None) -> "Engine":
        """Open the model in `folder` and check that its graph is the one the card describes.

        `threads`, those of one run, defaults to the setting. Raises `BadModel` where a file is
        missing, damaged or does not match the card.
        """
        card = ModelCard.load(folder)
        threads = threads or get_settings().threads
        graph = folder / GRAPH_FILE
        try:
            sha256 = graph_sha256(graph)
        except OSError as err:
            raise BadModel(f"{card.tag} has no readable {graph}.") from err
        if sha256 != card.graph_sha256:
            raise BadModel(
                f"{graph} is not the graph of {card.tag} that was registered: its hash differs "
                "from the card's. Train or import the model again."
            )
        try:
            # By its path: from bytes, the whole graph would be in memory once more.
            session = ort.InferenceSession(graph, _options(threads), providers=_providers())
        except Exception as err:  # ONNX Runtime's own exceptions share no base class
            raise BadModel(f"The graph of {card.tag} cannot be loaded: {err}") from err
        outputs = [output.name for output in session.get_outputs()]
        inputs = [argument.name for argument in session.get_inputs()]
        if inputs != ["images"] or outputs[:1] != [answer_name(card)]:
            raise BadModel(
                f"The graph of {card.tag}, a {card.task}, must take `images` and give "
                f"`{answer_name(card)}` first; it takes {inputs} and gives {outputs}."
            )
        return cls(folder, card, session, threads)

    def answers(self, pixels: images.Pixels) -> Floats:
        """`uint8 [N, H, W, 3]` to probabilities `float32 [N, C]` in the order of `card.labels`, or
        to the scores `float32 [N]` of a regression.
        """
        if len(pixels) == 0:  # some graphs cannot take an empty batch
            return np.zeros(self._shape(0), np.float32)
        result: Floats = self._session.run([self._output], {"images": pixels})[0]
        return result

    def run(self, pixels: images.Pixels) -> tuple[Floats, Floats]:
        """`uint8 [N, H, W, 3]` to what `answers` gives, and the embedding `float32 [N, D]`."""
        if len(pixels) == 0:
            empty = np.zeros((0, self.card.embedding_dim), np.float32)
            return self.answers(pixels), empty
        answers, embedding = self._session.run([self._output, "embedding"], {"images": pixels})
        return answers, embedding

    def warm_up(self, max_batch: int = 1) -> int:
        """Run blank images, so that no request pays for the first, and measure one.

        Returns how many images are to run together, as `batch_size` says.
        """
        shape = (self.card.preprocessing.height, self.card.preprocessing.width, 3)
        blank = np.zeros((1, *shape), np.uint8)
        self.answers(blank)
        started = time.perf_counter()
        self.answers(blank)
        self.seconds = time.perf_counter() - started
        batch = batch_size(self.seconds, max_batch) if self.on_cpu else max_batch
        if batch > 1:
            self.answers(np.zeros((batch, *shape), np.uint8))
        return batch

    def replay_goldens(self, batch: int = 1) -> None:
        """Decode and predict the golden images; raise `GateFailed` unless all answers hold.

        Besides the graph this proves that decoding and preprocessing are what they were when the
        model was trained. They run `batch` at a time.
        """
        tag = self.card.tag
        golden_dir = self.folder / GOLDEN_DIR
        file = golden_dir / GOLDEN_FILE
        pixels = []
        try:
            goldens = GoldenSet.model_validate_json(file.read_bytes())
            expected = np.array([golden.answer for golden in goldens.images], np.float32)
            for golden in goldens.images:
                file = golden_dir / golden.file
                pixels.append(images.load(file.read_bytes(), self.card.preprocessing))
        except (OSError, ValueError, BadImage) as err:
            raise GateFailed(
                f"{tag} cannot be checked by its golden images: {file}: {err}"
            ) from err
        if goldens.labels not in (None, self.card.labels):
            raise GateFailed(f"The card of {tag} has other labels than when it was registered.")
        if not pixels:
            raise GateFailed(f"{tag} has no golden images, so it cannot be checked.")
        batches = [np.stack(pixels[at : at + batch]) for at in range(0, len(pixels), batch)]
        try:
            with ThreadPoolExecutor(self.parallel) as threads:
                got = np.concatenate(list(threads.map(self.answers, batches)))
        except Exception as err:  # ONNX Runtime's own exceptions share no base class
            raise GateFailed(f"{tag} failed on its golden images: {err}") from err
        if (
            not got.shape == expected.shape == self._shape(len(pixels))
            or not np.isfinite(got).all()
        ):
            raise GateFailed(f"{tag} gives other outputs for its golden images than it should.")
        allowed = goldens.tolerance * self._span(expected)
        # Not a number, as an expected one may be, counts as different.
        if not (difference := float(np.abs(got - expected).max())) <= allowed:
            raise GateFailed(
                f"{tag} does not give its golden answers: they differ by up to {difference:.2g}, "
                f"and at most {allowed:.2g} is allowed."
            )
        if self.card.output_range is not None:
            low, high = self.card.output_range
            if got.min() < low - allowed or got.max() > high + allowed:
                raise GateFailed(
                    f"{tag} gives scores from {got.min():.4g} to {got.max():.4g}; its card says "
                    f"that none lies outside {low:g} to {high:g}."
                )

    def _shape(self, count: int) -> tuple[int, ...]:
        """Of the answers to `count` images."""
        return (count, len(self.card.labels)) if self.card.labels else (count,)

    def _span(self, expected: Floats) -> float:
        """What a tolerance is a share of: 1 of probabilities; of scores, their range or size."""
        if self.card.task == "classification":
            return 1.0
        low, high = self.card.output_range or (0.0, float(np.abs(expected).max()))
        return high - low


def answer_name(card: ModelCard) -> str:
    """The graph's first output."""
    return "score" if card.task == "regression" else "probabilities"


def verdicts(probabilities: Floats, threshold: float | None) -> npt.NDArray[np.intp]:
    """Probabilities `float32 [..., C]` to indices of the labels `[...]`.

    With a threshold, which only models of two classes have, the second is the verdict where it
    reaches that; otherwise the most probable class is.
    """
    if threshold is None:
        return np.asarray(np.argmax(probabilities, axis=-1))
    return np.asarray(probabilities[..., 1] >= threshold).astype(np.intp)


def gate(folder: Path, *, threads: int | None = None, max_batch: int = 1) -> Engine:
    """Load, warm up, replay the goldens: what every model passes before it answers anybody.

    Raises `BadModel` or `GateFailed`.
    """
    engine = Engine.load(folder, threads=threads)
    try:
        batch = engine.warm_up(max_batch)
    except Exception as err:  # ONNX Runtime's own exceptions share no base class
        raise GateFailed(f"{engine.card.tag} cannot run here: {err}") from err
    engine.replay_goldens(batch)
    release_memory()
    return engine


def batch_size(seconds: float, max_batch: int) -> int:
    """How many images are to run together on the CPU where one takes `seconds`: 1 to `max_batch`.

    A batch saves what a run costs besides its images. Where images are slow that is nothing, while
    memory grows with the batch, and so does the wait: under steady load a large batch gathers all
    clients, and reading their requests and running them take turns instead of going side by side.
    So no run is to take over `batch_ms`.
    """
    fitting = get_settings().batch_ms / 1000 / max(seconds, 1e-9)
    return max(1, min(max_batch, int(fitting)))


def side_by_side(threads: int) -> int:
    """Runs of `threads` threads each that a worker's share of the cores takes at a time."""
    return max(1, usable_cores() // get_settings().workers // threads)


def release_memory() -> None:
    """Hand back to the system what loading a model took for a moment: as much as the model."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # another C library; it has its own ways
        return


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores from decoding and from the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _providers() -> list[str]:
    wanted = get_settings().providers
    if wanted != "auto":
        return [name.strip() for name in wanted.split(",") if name.strip()]
    available = ort.get_available_providers()
    return [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]


def graph_runner(graph: bytes, *, threads: int = 0) -> Callable[[npt.NDArray[Any]], Floats]:
    """Runs a bare ONNX graph on the CPU: an array `[n, ...]` to its first output `[n, ...]`.

    `threads` are those of one run, 0 for as many as there are cores.
    """
    options = ort.SessionOptions()
    # Spinning threads would take the cores from decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    wanted, given = session.get_outputs()[0].name, session.get_inputs()[0].name

    def run(values: npt.NDArray[Any]) -> Floats:
        found: list[Floats] = [
            session.run([wanted], {given: values[start : start + _RUN]})[0]
            for start in range(0, len(values), _RUN)
        ]
        return np.concatenate(found)

    return run
