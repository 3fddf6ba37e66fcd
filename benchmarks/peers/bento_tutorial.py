"""The same model behind BentoML's own adaptive batching, written the way its guide shows it.

The guide: docs.bentoml.com, "Adaptive batching": one synchronous method on a list, with
`batchable=True`, `max_batch_size=32` and `max_latency_ms=1000`, and a numpy array as the answer.
The input type is the `PIL.Image.Image` of BentoML's image examples, so that BentoML decodes.
Three things are set as imgcls sets them, so that two ways of batching are compared and not two
settings: the options of the session, the largest batch, and the access log, which is off.

Reads PEER_MODEL (the ONNX file), PEER_SIDE (pixels) and PEER_THREADS from the environment.
"""

import os

import bentoml
import numpy as np
import onnxruntime as ort
from PIL import Image


@bentoml.service(
    name="bento_tutorial",
    workers=1,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
)
class BentoTutorial:
    def __init__(self) -> None:
        self.side = int(os.environ["PEER_SIDE"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["PEER_THREADS"])
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(
            os.environ["PEER_MODEL"], options, providers=["CPUExecutionProvider"]
        )

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def predict(self, images: list[Image.Image]) -> np.ndarray:
        """`[N]` pictures to probabilities `float32 [N, C]`."""
        return self.session.run(["probabilities"], {"images": np.stack(self.pixels(images))})[0]

    def pixels(self, images: list[Image.Image]) -> list[np.ndarray]:
        size = (self.side, self.side)
        return [
            np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
            for image in images
        ]
