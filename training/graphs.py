"""ONNX graphs in memory: small ones by hand, several put one after another, and run.

Every part has one input and gives its result as its first output; all are brought to one version
of the format.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from imgcls.engine import graph_runner

OPSET = 20
ML_OPSET = 3
"""Of `ai.onnx.ml`, where the trees and support vectors are."""
_IR = 10

Floats = npt.NDArray[np.float32]
Shape = tuple[int | str, ...]
"""Sizes, and names of those that are free."""


def small(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, npt.NDArray[Any]],
    takes: Shape,
    gives: Shape,
) -> onnx.ModelProto:
    """A graph of a few nodes from `x` float32 of the shape `takes` to `y` float32 of `gives`."""
    graph = helper.make_graph(
        list(nodes),
        "part",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, takes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, gives)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return _current(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]))


def affine(weight: Floats, bias: Floats) -> onnx.ModelProto:
    """`x @ weight + bias` for weight `float32 [D, K]` and bias `[K]`."""
    node = helper.make_node("Gemm", ["x", "weight", "bias"], ["y"])
    return small([node], {"weight": weight, "bias": bias}, ("n", len(weight)), ("n", len(bias)))


def joined(
    parts: Sequence[onnx.ModelProto], outputs: dict[str, tuple[int, Shape]]
) -> onnx.ModelProto:
    """The parts one after another, the input of the first one by its own name.

    `outputs` names the results, in their order: each is that of the part at a position.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(_current(parts[0]))
    results = [whole.graph.output[0].name]
    for number, part in enumerate(parts[1:], 1):
        added = compose.add_prefix(_current(part), f"{number}/")
        wire = [(results[-1], added.graph.input[0].name)]
        results.append(added.graph.output[0].name)
        # What is on the way must stay an output until the end, to be named there.
        whole = compose.merge_models(whole, added, io_map=wire, outputs=results)
    for name, (position, _) in outputs.items():
        whole.graph.node.append(helper.make_node("Identity", [results[position]], [name]))
    del whole.graph.output[:]
    whole.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, (_, shape) in outputs.items()
    )
    return _current(whole)


def runner(model: onnx.ModelProto) -> Callable[[npt.NDArray[Any]], Floats]:
    """Runs a part by ONNX Runtime on the CPU: an array `[n, ...]` to its first output."""
    return graph_runner(model.SerializeToString())


def _current(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in the versions of the format that all parts share."""
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets.get("", OPSET) != OPSET:
        model = version_converter.convert_version(model, OPSET)
    del model.opset_import[:]
    model.opset_import.extend(
        [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    )
    model.ir_version = _IR
    return model
