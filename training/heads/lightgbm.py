"""Gradient-boosted trees grown leaf by leaf (Ke et al. 2017), by LightGBM."""

from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import onnx
from lightgbm.callback import CallbackEnv
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from imgcls.recipes.types import LightGbmHead
from imgcls.settings import usable_cores
from training.events import throttled
from training.heads.convert import first
from training.heads.problem import FittedHead, Problem

Floats = npt.NDArray[np.float32]

_OPSET = 15
"""The newest that the converter writes."""


def fit_lightgbm(wanted: LightGbmHead, problem: Problem) -> FittedHead:
    """Fit on features `float32 [n, D]`: all `trees`, without an early end."""
    features, targets = problem.train
    report = throttled(problem.emit, "training")

    def progress(env: CallbackEnv) -> None:
        report((env.iteration + 1) / wanted.trees)

    options: dict[str, Any] = {
        "n_estimators": wanted.trees,
        "num_leaves": wanted.leaves,
        "learning_rate": wanted.lr,
        "min_child_samples": wanted.min_leaf,
        "random_state": problem.seed,
        "n_jobs": usable_cores(),
        "deterministic": True,
        "force_col_wise": True,
        "verbosity": -1,
    }
    kind = lightgbm.LGBMRegressor if problem.classes is None else lightgbm.LGBMClassifier
    model = kind(**options).fit(
        features, targets, sample_weight=problem.counts, callbacks=[progress]
    )
    ask: Any = model.booster_.predict  # two classes: the probability of the second

    def answer(features: Floats) -> Floats:
        found = ask(features).astype(np.float32)
        answers: Floats = np.stack((1 - found, found), 1) if problem.classes == 2 else found
        return answers

    return FittedHead(
        answer,
        (_graph(model, features.shape[1], problem.classes),),
        packages=("lightgbm", "onnxmltools"),
    )


def _graph(model: Any, features: int, classes: int | None) -> onnx.ModelProto:
    shape = [("x", FloatTensorType([None, features]))]
    options = {} if classes is None else {"zipmap": False}
    graph: onnx.ModelProto = convert_lightgbm(
        model, initial_types=shape, target_opset=_OPSET, **options
    )
    if classes is not None:
        first(graph, "probabilities")
    return graph
