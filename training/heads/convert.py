"""Graphs of scikit-learn's estimators."""

import warnings
from typing import Any

import onnx
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType

from training.graphs import ML_OPSET, OPSET


def from_sklearn(estimator: Any, features: int) -> onnx.ModelProto:
    """Its probabilities, or its numbers, for `float32 [n, features]`, as the first output."""
    classifies = hasattr(estimator, "classes_")
    with warnings.catch_warnings():
        # skl2onnx reads attributes that scikit-learn 1.11 will not have any more.
        warnings.simplefilter("ignore")
        model: onnx.ModelProto = convert_sklearn(
            estimator,
            initial_types=[("x", FloatTensorType([None, features]))],
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            options={id(estimator): {"zipmap": False}} if classifies else None,
        )
    if classifies:
        first(model, "probabilities")
    return model


def first(model: onnx.ModelProto, name: str) -> None:
    """Put the output `name` before the others, in place."""
    outputs = sorted(model.graph.output, key=lambda output: output.name != name)
    kept = [onnx.ValueInfoProto.FromString(output.SerializeToString()) for output in outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
