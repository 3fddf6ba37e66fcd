"""Make a run repeatable: every random generator seeded, deterministic kernels, fixed threads."""

import contextlib
import os
import random
from collections.abc import Iterator

import numpy as np
import torch

from imgcls.settings import usable_cores


@contextlib.contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch for the block; put torch's settings back afterwards.

    On one machine the same seed then gives the same numbers. Kernels that torch has only in a
    nondeterministic form are allowed, with torch's own warning (some CUDA backward passes).
    """
    # cuBLAS reads it when it starts; without it torch refuses to be deterministic on CUDA.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, threads = torch.backends.cudnn.benchmark, torch.get_num_threads()
    rounded = torch.backends.cudnn.allow_tf32
    random.seed(seed)
    np.random.seed(seed)  # third parties still draw from it
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # 32 bits mean 32: graphs are compared with the answers
    torch.set_num_threads(usable_cores())
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.cudnn.allow_tf32 = rounded
        torch.set_num_threads(threads)
