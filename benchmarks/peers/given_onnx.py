"""What the ONNX peers share: the same session that imgcls would open, and a plain decoder."""

import os
from typing import BinaryIO

import numpy as np
import onnxruntime as ort
from PIL import Image

SIDE = int(os.environ["PEER_SIDE"])


def session() -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ["PEER_THREADS"])
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(
        os.environ["PEER_MODEL"], options, providers=["CPUExecutionProvider"]
    )


def decode(file: BinaryIO) -> np.ndarray:
    """An encoded picture to `uint8 [SIDE, SIDE, 3]`."""
    return resize(Image.open(file))


def resize(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
