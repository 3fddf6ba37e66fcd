"""torch behind FastAPI and uvicorn, written the way tutorials do: no batching at all.

The endpoint is `async` and predicts inside, as most tutorials have it; with a plain `def` as many
predictions run at once as there are requests, and fight for the cores.
"""

import io

import torch
from fastapi import FastAPI, UploadFile
from PIL import Image

from benchmarks.peers import given_torch

app = FastAPI()
network = given_torch.network()


@app.post("/predict")
async def predict(images: UploadFile) -> dict[str, list[float]]:
    image = Image.open(io.BytesIO(await images.read())).convert("RGB")
    with torch.inference_mode():
        output = network(given_torch.preprocess(image).unsqueeze(0)).softmax(dim=1)
    return {"probabilities": output[0].tolist()}
