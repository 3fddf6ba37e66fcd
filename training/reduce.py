"""Principal components of standardised features, as one affine map that a graph holds too."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from sklearn.decomposition import PCA

from imgcls.errors import BadRecipe
from imgcls.recipes.types import Pca
from training import graphs

Floats = npt.NDArray[np.float32]

_WIDE = 2_000
"""Features: beyond, the components are those of so many images and no more, since the work grows
with the square of the lesser of the two."""
_STILL = 1e-6
"""A feature whose deviation is smaller, beside its mean, never changes and tells nothing."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """`x @ weight + bias` for features `float32 [n, D]` gives `[n, K]`."""

    weight: Floats
    bias: Floats

    @property
    def graph(self) -> onnx.ModelProto:
        return graphs.affine(self.weight, self.bias)


def fit_pca(features: Floats, wanted: Pca) -> Reduction:
    """Find the components of training features `float32 [n, D]`.

    Raises `BadRecipe` where there are more components to keep than images or features.
    """
    mean, scale = moments(features)
    if features.shape[1] > _WIDE:
        features = features[
            np.linspace(0, len(features) - 1, min(len(features), _WIDE)).astype(int)
        ]
    most = min(features.shape)
    if wanted.components is not None and wanted.components > most:
        raise BadRecipe(
            f"reduce.components is {wanted.components}, and there are {most} at most of "
            f"{features.shape[1]} features and {len(features)} images."
        )
    solver = "full" if features.shape[1] > _WIDE else "covariance_eigh"
    found = PCA(wanted.components or wanted.variance, svd_solver=solver)
    found.fit((features - mean) * scale)
    components = found.components_.T.astype(np.float64)
    weight = components * scale[:, None]
    bias = -(mean @ weight) - found.mean_ @ components
    return Reduction(weight.astype(np.float32), bias.astype(np.float32))


def moments(features: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and 1 / deviation `float64 [D]` of each feature; 0 for one that never changes."""
    mean = features.mean(0, dtype=np.float64)
    deviation = features.std(0, dtype=np.float64)
    moves = deviation > _STILL * (1 + np.abs(mean))
    return mean, np.divide(1.0, deviation, out=np.zeros_like(mean), where=moves)
