"""Random forests (Breiman 2001), by scikit-learn."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from imgcls.recipes.types import RandomForestHead
from imgcls.settings import usable_cores
from training.heads.convert import from_sklearn
from training.heads.problem import FittedHead, Problem

Floats = npt.NDArray[np.float32]


def fit_forest(wanted: RandomForestHead, problem: Problem) -> FittedHead:
    """Fit on features `float32 [n, D]`."""
    features, targets = problem.train
    options: dict[str, Any] = {
        "n_estimators": wanted.trees,
        "max_depth": wanted.depth,
        "min_samples_leaf": wanted.min_leaf,
        "random_state": problem.seed,
        "n_jobs": usable_cores(),
    }
    if problem.classes is None:
        # A third of the features at each split, as Breiman's; the default looks at all.
        forest: Any = RandomForestRegressor(max_features=1 / 3, **options)
    else:
        forest = RandomForestClassifier(**options)
    forest.fit(features, targets, sample_weight=problem.counts)
    ask = forest.predict if problem.classes is None else forest.predict_proba

    def answer(features: Floats) -> Floats:
        answers: Floats = ask(features).astype(np.float32)
        return answers

    return FittedHead(answer, (from_sklearn(forest, features.shape[1]),), packages=("skl2onnx",))
