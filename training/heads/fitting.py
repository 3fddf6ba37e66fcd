"""The head that a recipe names, fitted on classes or numbers as the dataset has them."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from imgcls.errors import ImgclsError, TrainingFailed
from imgcls.recipes.types import CatBoostHead, Head, LightGbmHead, LinearHead, RandomForestHead
from training import graphs
from training.heads import catboost, lightgbm, linear, random_forest, svc
from training.heads.problem import Examples, FittedHead, Problem

Floats = npt.NDArray[np.float32]
Range = tuple[float, float]


def check(wanted: Head, classes: int | None) -> None:
    """Raises `BadRecipe` for one neuron and more than two classes."""
    if isinstance(wanted, LinearHead) and classes is not None:
        linear.check_head(wanted, classes)


def fit(wanted: Head, problem: Problem, *, output_range: Range | None = None) -> FittedHead:
    """Fit what `wanted` says.

    Of a regression the answers never leave `output_range`; null takes that of the training
    targets. A class without a training image has probability 0, or nearly. Raises `BadRecipe`
    and `TrainingFailed`.
    """
    try:
        if problem.classes is None:
            return _numbers(wanted, problem, output_range)
        if isinstance(wanted, LinearHead):
            return linear.fit_linear(wanted, problem)
        return _classes(wanted, problem, problem.classes)
    except (ImgclsError, MemoryError):
        raise
    except Exception as err:  # the libraries raise errors of many kinds for what they cannot fit
        reason = " ".join(str(err).split())[:200]
        raise TrainingFailed(
            f"The head {wanted.kind} could not be fitted ({reason}): take gentler settings, or "
            "another head."
        ) from err


def _fit(wanted: Head, problem: Problem) -> FittedHead:
    if isinstance(wanted, LinearHead):
        return linear.fit_ridge(wanted, problem)
    if isinstance(wanted, RandomForestHead):
        return random_forest.fit_forest(wanted, problem)
    if isinstance(wanted, LightGbmHead):
        return lightgbm.fit_lightgbm(wanted, problem)
    if isinstance(wanted, CatBoostHead):
        return catboost.fit_catboost(wanted, problem)
    return svc.fit_svc(wanted, problem)


def _numbers(wanted: Head, problem: Problem, output_range: Range | None) -> FittedHead:
    """Targets are scaled to mean 0 and deviation 1, and the answers back and clipped."""
    targets = problem.train[1].astype(np.float64)
    low, high = output_range or (float(targets.min()), float(targets.max()))
    mean, deviation = np.float32(targets.mean()), np.float32(targets.std() or 1.0)

    def scaled(examples: Examples) -> Examples:
        return examples[0], ((examples[1] - mean) / deviation).astype(np.float32)

    inner = _fit(wanted, replace(problem, train=scaled(problem.train), val=scaled(problem.val)))

    def answer(features: Floats) -> Floats:
        score: Floats = (inner.answer(features).astype(np.float32) * deviation + mean).clip(
            low, high
        )
        return score

    return replace(inner, answer=answer, parts=(*inner.parts, _shaping(deviation, mean, low, high)))


def _shaping(deviation: np.float32, mean: np.float32, low: float, high: float) -> onnx.ModelProto:
    """`[n]` or `[n, 1]` to clipped scores `[n]`."""
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["numbers"]),
        helper.make_node("Mul", ["numbers", "deviation"], ["wide"]),
        helper.make_node("Add", ["wide", "mean"], ["free"]),
        helper.make_node("Clip", ["free", "low", "high"], ["y"]),
    ]
    constants = {
        "flat": np.array([-1]),
        "deviation": np.array(deviation),
        "mean": np.array(mean),
        "low": np.array(low, np.float32),
        "high": np.array(high, np.float32),
    }
    return graphs.small(nodes, constants, ("n", 1), ("n",))


def _classes(wanted: Head, problem: Problem, classes: int) -> FittedHead:
    """Libraries number the classes that they see; put their answers at the places of all."""
    features, targets = problem.train
    seen, codes = np.unique(targets, return_inverse=True)
    known = np.isin(problem.val[1], seen)
    val = problem.val[0][known], np.searchsorted(seen, problem.val[1][known])
    inner = _fit(wanted, replace(problem, train=(features, codes), val=val, classes=len(seen)))
    if len(seen) == classes:
        return inner
    places = np.eye(classes, dtype=np.float32)[seen]
    return replace(
        inner,
        answer=lambda features: inner.answer(features) @ places,
        parts=(*inner.parts, graphs.affine(places, np.zeros(classes, np.float32))),
    )
