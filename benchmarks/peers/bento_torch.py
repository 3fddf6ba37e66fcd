"""torch behind BentoML's own adaptive batching, written the way its guide shows it.

The guide: docs.bentoml.com, "Adaptive batching", with the `PIL.Image.Image` of the image examples.
`max_latency_ms` is 10 s instead of the guide's 1 s: BentoML refuses requests whose batch it expects
to take longer, and the larger network may on a slow machine.
"""

import os

import bentoml
import numpy as np
import torch
from PIL import Image

from benchmarks.peers import given_torch


@bentoml.service(
    name="bento_torch",
    workers=int(os.environ["PEER_WORKERS"]),
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
)
class BentoTorch:
    def __init__(self) -> None:
        self.network = given_torch.network()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=10_000)
    def predict(self, images: list[Image.Image]) -> np.ndarray:
        """`[N]` pictures to probabilities `float32 [N, C]`."""
        batch = torch.stack([given_torch.preprocess(image.convert("RGB")) for image in images])
        with torch.inference_mode():
            return self.network(batch).softmax(dim=1).numpy()
