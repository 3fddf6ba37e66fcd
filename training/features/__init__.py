"""Features: what images become before a head is fitted on them, computed once.

cache                     arrays kept on disk by what they depend on
hog, dense_sift, pixels   torch modules, `uint8 [n, H, W, 3]` to `float32 [n, D]`
extractors                the module that a recipe asks for, and its ONNX graph
compute                   the features of a dataset's rows, by that graph
"""

from training.features.compute import features
from training.features.extractors import Extractor, load_extractor

__all__ = ["Extractor", "features", "load_extractor"]
