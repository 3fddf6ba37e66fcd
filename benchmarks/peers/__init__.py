"""What imgcls races against, each written the way its own documentation shows it.

All take a multipart form with one picture in the field `images` at `/predict`, stretch it to the
model's size, and answer with the probabilities of all classes. Their settings come from the
environment: PEER_SIDE (pixels), PEER_WORKERS, PEER_THREADS (of one worker's ONNX session), and
PEER_MODEL (an ONNX file) or PEER_NETWORK (a torchvision name) with PEER_WEIGHTS (its state dict).
"""
