"""The features of a dataset's rows, computed by the graph that will compute them when it serves.

ONNX Runtime is quicker than torch on a CPU (2.5 times for EfficientNet-B0), and heads that decide
by thresholds are fitted on the very numbers that they will see.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from imgcls.card import Preprocessing
from training import graphs
from training.features import cache
from training.features.extractors import Extractor, HashedSource
from training.loader import Pixels, Progress, Rows, iter_pixels

Floats = npt.NDArray[np.float32]
Elsewhere = Callable[[bytes, npt.NDArray[np.int64], Preprocessing], Iterator[Floats]]
"""Runs a graph over rows of a dataset on other machines, some of them at a time, in order."""


def features(
    extractor: Extractor,
    source: HashedSource,
    rows: Rows,
    *,
    device: torch.device | None = None,
    progress: Progress | None = None,
    elsewhere: Elsewhere | None = None,
) -> Floats:
    """`float32 [n, dim]` of `rows`, in their order, without augmentation.

    Read from the cache where it has them: nothing is decoded then. On a GPU (`device`) backbones
    are run by torch, unless the graph is run `elsewhere`. The array is mapped copy-on-write.
    """
    on_gpu = (
        extractor.backbone is not None
        and device is not None
        and device.type == "cuda"
        and elsewhere is None
    )

    def computed() -> Iterator[Floats]:
        if elsewhere is not None:
            graph = extractor.graph.SerializeToString()
            yield from elsewhere(graph, np.asarray(rows), extractor.preprocessing)
            return
        run = _on_gpu(extractor, device) if on_gpu else graphs.runner(extractor.graph)
        for chunk in iter_pixels(source, rows, extractor.preprocessing):
            yield run(chunk)

    def fill(found: Floats) -> None:
        done = 0
        for chunk in computed():
            found[done : done + len(chunk)] = chunk
            done += len(chunk)
            if progress:
                progress(done / len(rows))

    config = ["features", "cuda" if on_gpu else "cpu", *extractor.identity]
    name = cache.key(config, (source.content_hash(int(row)) for row in rows))
    stored = cache.stored(name, (len(rows), extractor.dim), fill)
    if progress:
        progress(1.0)
    return stored


def _on_gpu(extractor: Extractor, device: torch.device | None) -> Callable[[Pixels], Floats]:
    module = extractor.module.to(device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(pixels: Pixels) -> Floats:
        # The graph that serves knows no TF32, which has three digits.
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            found: Floats = module(torch.from_numpy(pixels).to(device)).float().cpu().numpy()
        return found

    return run
