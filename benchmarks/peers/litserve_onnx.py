"""The same ONNX model behind LitServe, written as its torch counterpart is.

Pictures this small decode in less time than a pool of threads takes to hand them out, so that
`decode_request` decodes, as LitServe's first example does.
"""

import os

import litserve as ls
import numpy as np

from benchmarks.peers import given_onnx


class ImageClassifier(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.session = given_onnx.session()

    def decode_request(self, request):
        return given_onnx.decode(request["images"].file)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(["probabilities"], {"images": x})[0]

    def encode_response(self, output):
        return {"output": output.tolist()}


if __name__ == "__main__":
    server = ls.LitServer(
        ImageClassifier(max_batch_size=16, batch_timeout=0.01),
        accelerator="cpu",
        workers_per_device=int(os.environ["PEER_WORKERS"]),
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        generate_client_file=False,
        access_log=False,
    )
