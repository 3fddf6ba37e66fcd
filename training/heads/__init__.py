"""Heads: what is fitted on features, each of them with the ONNX graph that answers alike.

problem                                            what is given, what comes back
linear, svc, random_forest, lightgbm, catboost     one kind each
fitting                                            the one that a recipe names
"""

from training.heads.fitting import check, fit
from training.heads.problem import Examples, FittedHead, Problem

__all__ = ["Examples", "FittedHead", "Problem", "check", "fit"]
