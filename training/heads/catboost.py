"""Gradient-boosted symmetric trees (Prokhorenkova et al. 2018), by CatBoost."""

from typing import Any

import catboost
import numpy as np
import numpy.typing as npt
import onnx

from imgcls.files import scratch
from imgcls.recipes.types import CatBoostHead
from imgcls.settings import get_settings, usable_cores
from training.events import throttled
from training.heads.problem import FittedHead, Problem

Floats = npt.NDArray[np.float32]


def fit_catboost(wanted: CatBoostHead, problem: Problem) -> FittedHead:
    """Fit on features `float32 [n, D]`: all `trees`, without an early end."""
    features, targets = problem.train
    report = throttled(problem.emit, "training")

    class Progress:
        def after_iteration(self, info: Any) -> bool:
            report(info.iteration / wanted.trees)
            return True

    options: dict[str, Any] = {
        "iterations": wanted.trees,
        "depth": wanted.depth,
        "learning_rate": wanted.lr,
        "random_seed": problem.seed,
        "thread_count": usable_cores(),
        "allow_writing_files": False,
        "logging_level": "Silent",
    }
    if problem.classes is None:
        model: Any = catboost.CatBoostRegressor(**options)
    else:
        model = catboost.CatBoostClassifier(**options)
    model.fit(features, targets, sample_weight=problem.counts, callbacks=[Progress()])
    ask = model.predict if problem.classes is None else model.predict_proba

    def answer(features: Floats) -> Floats:
        answers: Floats = np.asarray(ask(np.ascontiguousarray(features)), np.float32)
        return answers

    return FittedHead(answer, (_graph(model, problem.classes),), packages=("catboost",))


def _graph(model: Any, classes: int | None) -> onnx.ModelProto:
    with scratch(get_settings().home / "cache", ".tmp-") as work:
        path = work / "catboost.onnx"
        model.save_model(str(path), format="onnx")
        graph = onnx.load(path)
    # Probabilities come as a list of mappings; what those are made of is the array.
    for node in [node for node in graph.graph.node if node.op_type == "ZipMap"]:
        graph.graph.node.remove(node)
        probabilities = onnx.helper.make_tensor_value_info(
            node.input[0], onnx.TensorProto.FLOAT, ("n", classes)
        )
        del graph.graph.output[:]
        graph.graph.output.append(probabilities)
    return graph
