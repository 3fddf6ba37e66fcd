"""8-bit graphs: static quantization, calibrated and then judged on validation images.

Weights and activations become 8-bit integers with scales (QDQ; per channel for weights, by the
range seen in calibration for activations), as ONNX Runtime's `quantize_static` makes them.
Activations are unsigned: with signed ones a processor without VNNI takes longer than in fp32.
Weights have 7 bits, since such a processor adds pairs of products in 16 bits, which 8 would
overflow. So the graph answers alike on every processor. Convolutions of a ResNet run 1.5 to 3 times
as fast; other networks become slower, or lose accuracy, and the graph is kept only where it is
quicker here and loses no more than was allowed.
"""

import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from imgcls.card import Quantization
from imgcls.engine import verdicts
from training.calibrate import PREFIX
from training.evaluate import Targets
from training.export import Graph
from training.loader import Pixels

CALIBRATION_IMAGES = 128
_CALIBRATION_BATCH = 8
_TIMED_RUNS = 15


def quantize(
    path: Path,
    pixels: Pixels,
    targets: Targets,
    *,
    largest_loss: float,
    threshold: float | None = None,
) -> Quantization:
    """Replace the graph at `path` by its 8-bit form, where that is worth it.

    `pixels` `uint8 [n, H, W, 3]` and `targets` `int64 [n]` are validation images: the first
    `CALIBRATION_IMAGES` give the ranges, all of them the accuracy. `largest_loss` is the share of
    them that the 8-bit graph may get wrong beyond those of the other. What was measured is
    returned either way.
    """
    with tempfile.TemporaryDirectory(prefix="imgcls-", dir=path.parent) as scratch:
        small = Path(scratch) / "int8.onnx"
        _write(path, pixels[:CALIBRATION_IMAGES], small)
        graphs = Graph(path, threads=1), Graph(small, threads=1)
        full, short = (
            float((verdicts(graph.run(pixels)[0], threshold) == targets).mean()) for graph in graphs
        )
        speedup = _speedup(*graphs, pixels[:1])
        found = Quantization(
            kept=full - short <= largest_loss and speedup > 1,
            images=len(pixels),
            accuracy=short,
            accuracy_fp32=full,
            largest_loss=largest_loss,
            speedup=round(speedup, 3),
        )
        if found.kept:
            os.replace(small, path)
    return found


def _write(source: Path, pixels: Pixels, target: Path) -> None:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the quantizer gives advice that is followed here already
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prepared = target.with_name("prepared.onnx")
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(target),
                _Calibration(pixels),
                nodes_to_exclude=_probabilities(prepared),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    finally:
        root.setLevel(level)


def _probabilities(path: Path) -> list[str]:
    """Names of the nodes that make probabilities of logits: 256 steps are too few for those."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return [n.name for n in nodes if n.op_type == "Softmax" or n.name.startswith(PREFIX)]


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Feeds the images to the quantizer, a few at a time."""

    def __init__(self, pixels: Pixels) -> None:
        self._batches: Iterator[Pixels] = iter(
            np.array_split(pixels, max(1, len(pixels) // _CALIBRATION_BATCH))
        )

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def _speedup(full: Graph, short: Graph, pixels: Pixels) -> float:
    """How many times as fast the second graph is, by the median of runs in turn."""
    times: tuple[list[float], list[float]] = [], []
    for _ in range(_TIMED_RUNS):
        for graph, spent in zip((full, short), times, strict=True):
            started = time.perf_counter()
            graph.run(pixels)
            spent.append(time.perf_counter() - started)
    return statistics.median(times[0]) / statistics.median(times[1])
