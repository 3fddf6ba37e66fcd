"""Answers that mean what they say: temperature, abstention and intervals, by validation images."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from scipy.optimize import minimize_scalar

from imgcls.engine import verdicts
from training.evaluate import Targets, confidence

Floats = npt.NDArray[np.float32]

PREFIX = "temperature/"
"""With which the names of the nodes begin that `scale_graph` adds."""
_FLOOR = 1e-12
"""Smaller probabilities have this logarithm."""
_RANGE = (0.05, 20.0)
_OUTPUT = "probabilities"


def fit_temperature(probabilities: Floats, targets: Targets) -> float:
    """The temperature by which the logits of probabilities `float32 [n, C]` are to be divided, so
    that their log-loss on `targets` `int64 [n]` is least (Guo et al. 2017).

    Each target is smoothed by one part in n + 2, as Platt (1999) did: a few images that are all
    right do not make a model certain.
    """
    count, classes = probabilities.shape
    logits = _logits(probabilities)
    smooth = np.full((count, classes), 1 / (count + 2) / (classes - 1))
    smooth[np.arange(count), targets] = (count + 1) / (count + 2)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        top = scaled.max(1, keepdims=True)
        total = np.log(np.exp(scaled - top).sum(1)) + top[:, 0]
        return float((total - (smooth * scaled).sum(1)).mean())

    found = minimize_scalar(loss, bounds=np.log(_RANGE), method="bounded")
    # In the graph it is a float32, and the answers are to be those of the graph.
    return float(np.float32(np.exp(found.x)))


def scaled(probabilities: Floats, temperature: float) -> Floats:
    """What a graph with this temperature in it answers, `float32 [n, C]`."""
    if temperature == 1.0:
        return probabilities
    logits = _logits(probabilities) / temperature
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)


def scale_graph(path: Path, temperature: float) -> None:
    """Build the temperature into the graph at `path`, behind whatever gives its probabilities."""
    if temperature == 1.0:
        return
    model = onnx.load(path)
    graph = model.graph
    raw = PREFIX + "raw"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [raw if name == _OUTPUT else name for name in names]
    graph.initializer.extend(
        [
            helper.make_tensor(PREFIX + "floor", TensorProto.FLOAT, [], [_FLOOR]),
            helper.make_tensor(PREFIX + "inverse", TensorProto.FLOAT, [], [1 / temperature]),
        ]
    )
    steps = [
        ("Max", [raw, PREFIX + "floor"], PREFIX + "kept"),
        ("Log", [PREFIX + "kept"], PREFIX + "logits"),
        ("Mul", [PREFIX + "logits", PREFIX + "inverse"], PREFIX + "divided"),
        ("Softmax", [PREFIX + "divided"], _OUTPUT),  # over the last axis, as it does by itself
    ]
    graph.node.extend(
        helper.make_node(kind, takes, [gives], name=PREFIX + kind.lower())
        for kind, takes, gives in steps
    )
    onnx.save(model, path)


def abstain_threshold(
    probabilities: Floats, targets: Targets, error: float, *, threshold: float | None = None
) -> float:
    """The smallest probability of a verdict from which on at most the share `error` of the verdicts
    on these images is wrong; 0 where all may be answered, 1 where none may.
    """
    said = confidence(probabilities, threshold)
    order = np.argsort(-said, kind="stable")
    mistaken = (verdicts(probabilities, threshold) != targets)[order]
    wrong = np.cumsum(mistaken) / np.arange(1, len(order) + 1)
    ordered = said[order]
    # Equal confidences are answered together, or not at all.
    ends = np.append(ordered[1:] != ordered[:-1], True)
    fitting = np.flatnonzero(ends & (wrong <= error))
    if not len(fitting):
        return 1.0
    last = int(fitting[-1])
    if last == len(order) - 1:
        return 0.0
    # Halfway to the first that is not answered, so that rounding moves no image across.
    return float((ordered[last] + ordered[last + 1]) / 2)


def conformal_half_width(errors: Floats, coverage: float) -> float:
    """Half the width of intervals around scores that hold the truth of the share `coverage` of new
    images, from errors `float32 [n]` on images that the model was not trained on.

    Split conformal prediction (Lei et al. 2018): the ceil((n + 1) coverage)-th smallest absolute
    error; the largest where there are too few images for that.
    """
    place = int(np.ceil((len(errors) + 1) * coverage))
    return float(np.sort(np.abs(errors))[min(place, len(errors)) - 1])


def _logits(probabilities: Floats) -> npt.NDArray[np.float64]:
    return np.log(np.maximum(probabilities, np.float32(_FLOOR)).astype(np.float64))
