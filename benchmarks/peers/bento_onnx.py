"""The same ONNX model behind BentoML's own adaptive batching, written the way its guide shows it.

The guide: docs.bentoml.com, "Adaptive batching": one synchronous method on a list, with
`batchable=True`, `max_batch_size=32` and `max_latency_ms=1000`, and a numpy array as the answer.
The input type is the `PIL.Image.Image` of BentoML's image examples, so that BentoML decodes.
Three things are set as imgcls sets them, so that two ways of batching are compared and not two
settings: the options of the session, the largest batch, and the access log, which is off.
"""

import os

import bentoml
import numpy as np
from PIL import Image

from benchmarks.peers import given_onnx


@bentoml.service(
    name="bento_onnx",
    workers=int(os.environ["PEER_WORKERS"]),
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
)
class BentoOnnx:
    def __init__(self) -> None:
        self.session = given_onnx.session()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def predict(self, images: list[Image.Image]) -> np.ndarray:
        """`[N]` pictures to probabilities `float32 [N, C]`."""
        pixels = np.stack([given_onnx.resize(image) for image in images])
        return self.session.run(["probabilities"], {"images": pixels})[0]
