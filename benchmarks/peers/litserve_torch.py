"""torch behind LitServe, written the way its guide for image classification shows it.

The guide: lightning.ai/docs/litserve, "Speed up serving by 200x": requests are passed on encoded,
`batch` decodes them in a pool of threads, and batches wait 10 ms for company. The largest batch is
the 16 requests that are under way at once.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import litserve as ls
import torch
from PIL import Image
from starlette.datastructures import UploadFile
from torch import Tensor

from benchmarks.peers import given_torch


class ImageClassifier(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.network = given_torch.network().to(device)
        self.pool = ThreadPoolExecutor(os.cpu_count())

    def decode_request(self, request):
        return request["images"]

    def batch(self, inputs: list[UploadFile]) -> Tensor:
        return torch.stack(list(self.pool.map(self.decode, inputs)))

    def decode(self, file: UploadFile) -> Tensor:
        return given_torch.preprocess(Image.open(file.file).convert("RGB"))

    def predict(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.network(x).softmax(dim=1)

    def unbatch(self, output: Tensor) -> list[list[float]]:
        return output.tolist()

    def encode_response(self, output):
        return {"output": output}


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
