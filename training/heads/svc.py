"""Support vectors, with probabilities by Platt's scaling over folds; SVR for numbers.

The kernel is computed once, by matrix products, and shared by the final machine and those of the
folds. Since the work and the memory grow with the square of the images, no more than `max_images`
are taken.
"""

import copy
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import onnx
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.svm import SVC, SVR

from imgcls.errors import BadRecipe
from imgcls.recipes.types import SvcHead
from imgcls.settings import usable_cores
from training.heads.convert import from_sklearn
from training.heads.problem import FittedHead, Problem

Floats = npt.NDArray[np.float32]

FOLDS = 5
_CHUNK = 1_000
_CACHE_MB = 200


def fit_svc(wanted: SvcHead, problem: Problem) -> FittedHead:
    """Fit on features `float32 [n, D]`. Raises `BadRecipe` for a class of one image."""
    rows = _sample(problem, wanted.max_images)
    features, targets = problem.train[0][rows], problem.train[1][rows]
    counts = None if problem.counts is None else problem.counts[rows]
    gamma = _gamma(wanted, features)
    kernel = _kernel(wanted, gamma, features)
    options: dict[str, Any] = {"kernel": "precomputed", "C": wanted.C, "cache_size": _CACHE_MB}
    if problem.classes is None:
        machine: Any = SVR(**options).fit(kernel(features), targets, sample_weight=counts)
    else:
        fewest = int(np.bincount(targets).min())
        if fewest < 2:
            raise BadRecipe(
                "head.kind=svc needs two training images of each class or more, to set its "
                "probabilities by images that it has not seen; take another head."
            )
        folds = min(FOLDS, fewest)
        machine = CalibratedClassifierCV(SVC(**options), cv=folds, ensemble=False)
        with joblib.parallel_config("threading", n_jobs=usable_cores()):
            machine.fit(kernel(features), targets, sample_weight=counts)
    ask: Callable[[Any], Any] = (
        machine.predict if problem.classes is None else machine.predict_proba
    )

    def answer(asked: Floats) -> Floats:
        parts = [
            ask(kernel(asked[start : start + _CHUNK])) for start in range(0, len(asked), _CHUNK)
        ]
        return np.concatenate(parts).astype(np.float32)

    return FittedHead(answer, (_graph(machine, wanted, gamma, features),), packages=("skl2onnx",))


def _sample(problem: Problem, most: int) -> Any:
    """Where about so many training examples are, classes in proportion, but rare ones whole."""
    targets = problem.train[1]
    if len(targets) <= most:
        return slice(None)
    order = np.random.default_rng(problem.seed).permutation(len(targets))
    if problem.classes is None:
        return np.sort(order[:most])
    classes = (order[targets[order] == number] for number in range(problem.classes))
    share = most / len(targets)
    return np.sort(np.concatenate([c[: max(FOLDS, int(share * len(c)))] for c in classes]))


def _gamma(wanted: SvcHead, features: Floats) -> float:
    """As scikit-learn has it."""
    if isinstance(wanted.gamma, float):
        return wanted.gamma
    variance = float(features.var(dtype=np.float64)) if wanted.gamma == "scale" else 1.0
    return float(1 / (features.shape[1] * (variance or 1.0)))


def _kernel(wanted: SvcHead, gamma: float, vectors: Floats) -> Callable[[Floats], Any]:
    """Features `[n, D]` to their kernel with the training examples, `float64 [n, examples]`."""
    doubles = vectors.astype(np.float64)

    def kernel(features: Floats) -> Any:
        return pairwise_kernels(
            features.astype(np.float64),
            doubles,
            metric=wanted.kernel,
            filter_params=True,
            gamma=gamma,
            degree=wanted.degree,
            coef0=0.0,
        )

    return kernel


def _graph(machine: Any, wanted: SvcHead, gamma: float, features: Floats) -> onnx.ModelProto:
    """The machine that computes its kernel itself: it needs the support vectors only."""
    own = copy.deepcopy(machine)
    vectors = own.calibrated_classifiers_[0].estimator if hasattr(own, "classes_") else own
    vectors.kernel, vectors.gamma, vectors.degree = wanted.kernel, gamma, wanted.degree
    vectors._gamma = gamma
    vectors.support_vectors_ = features[vectors.support_].astype(np.float64)
    vectors.shape_fit_ = features.shape
    vectors.n_features_in_ = own.n_features_in_ = features.shape[1]
    return from_sklearn(own, features.shape[1])
