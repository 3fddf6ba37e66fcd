"""The same ONNX model behind a bare Starlette app: the least that an HTTP server can do.

One request after the other: parse the form, decode as imgcls does, run, answer; nothing is batched,
limited, followed or counted.
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.peers import given_onnx
from imgcls import images
from imgcls.card import Preprocessing

session = given_onnx.session()
preprocessing = Preprocessing(height=given_onnx.SIDE, width=given_onnx.SIDE)


async def predict(request: Request) -> JSONResponse:
    async with request.form() as form:
        pixels = images.load(await form["images"].read(), preprocessing)
    (output,) = session.run(["probabilities"], {"images": pixels[None]})
    return JSONResponse({"probabilities": output[0].tolist()})


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
