"""Tiny real models and pictures: what tests put where a trained model would be.

The graphs are real ONNX with the real inputs and outputs; one answers with the softmax of the mean
colour, one with the brightness as a score, so a picture's right answer is known without training.
"""

import hashlib
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from PIL import Image

from imgcls import images
from imgcls.card import (
    GOLDEN_DIR,
    GOLDEN_FILE,
    GRAPH_FILE,
    DatasetLineage,
    Golden,
    GoldenSet,
    Interval,
    Metrics,
    ModelCard,
    Preprocessing,
    RegressionMetrics,
)
from imgcls.engine import answer_name
from imgcls.registry import Registry

COLOURS = ("red", "green", "blue")


def jpeg(colour: str = "red", size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    """A JPEG of one colour with a little noise; `size` is width and height in pixels."""
    plain = np.asarray(Image.new("RGB", size, colour)).astype(np.int16)
    noise = np.random.default_rng(0).integers(-9, 10, plain.shape)
    buffer = io.BytesIO()
    Image.fromarray((plain + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def left_behind(parent: Path, prefix: str) -> Path:
    """A folder of that prefix with a file in it, as a process killed two days ago left it."""
    folder = parent / f"{prefix}old"
    folder.mkdir(parents=True)
    (folder / "half").write_bytes(b"x")
    then = time.time() - 2 * 86_400
    os.utime(folder, (then, then))
    return folder


def class_folders(root: Path, per_class: int = 12, splits: tuple[str, ...] = ("",)) -> Path:
    """Folders red/, green/, blue/ (in each split) of different small JPEGs; returns `root`."""
    rng = np.random.default_rng(7)
    for split in splits:
        for channel, colour in enumerate(COLOURS):
            folder = root / split / colour
            folder.mkdir(parents=True)
            for number in range(per_class):
                pixels = rng.integers(0, 120, (24, 28, 3), np.uint8)
                pixels[:, :, channel] += 100
                Image.fromarray(pixels).save(folder / f"{number:03d}.jpg", quality=92)
    return root


def tiny_graph(path: Path, size: int, bias: tuple[float, ...]) -> None:
    """images -> mean colour (`embedding`) -> softmax of colour / 16 + bias (`probabilities`)."""
    count = len(bias)
    nodes = [
        helper.make_node("Mul", ["embedding", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "pick"], ["picked"]),
        helper.make_node("Add", ["picked", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    weights = [
        helper.make_tensor("scale", TensorProto.FLOAT, [1], [1 / 16]),
        helper.make_tensor("pick", TensorProto.FLOAT, [3, count], np.eye(3, count).ravel()),
        helper.make_tensor("bias", TensorProto.FLOAT, [count], bias),
    ]
    _write_graph(path, size, nodes, weights, "probabilities", count)


def tiny_score_graph(path: Path, size: int, low: float, high: float, bias: float) -> None:
    """images -> mean colour (`embedding`) -> brightness, clipped to the range (`score`).

    Black lies a tenth of the range below it, white a tenth above, and grey in the middle.
    """
    span = high - low
    nodes = [
        helper.make_node("ReduceMean", ["embedding", "last"], ["brightness"], keepdims=0),
        helper.make_node("Mul", ["brightness", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["raw"]),
        helper.make_node("Clip", ["raw", "low", "high"], ["score"]),
    ]
    weights = [
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [1.2 * span / 255]),
        helper.make_tensor("bias", TensorProto.FLOAT, [], [low - 0.1 * span + bias]),
        helper.make_tensor("low", TensorProto.FLOAT, [], [low]),
        helper.make_tensor("high", TensorProto.FLOAT, [], [high]),
    ]
    _write_graph(path, size, nodes, weights, "score")


def no_number_for_black(path: Path) -> None:
    """Change the graph of classes at `path`: its answer to a black picture is not a number."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["known" if name == "probabilities" else name for name in node.output]
    model.graph.initializer.append(helper.make_tensor("colours", TensorProto.INT64, [1], [1]))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["embedding", "colours"], ["light"], keepdims=1),
            helper.make_node("Div", ["light", "light"], ["one"]),
            helper.make_node("Mul", ["known", "one"], ["probabilities"]),
        ]
    )
    onnx.save(model, path)


def _write_graph(
    path: Path, size: int, nodes: list[Any], weights: list[Any], answer: str, *shape: int
) -> None:
    """`nodes` make `answer` `[n, *shape]` from the mean colour, `embedding` `[n, 3]`."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], ["embedding"], keepdims=0),
            *nodes,
        ],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", size, size, 3])],
        [
            helper.make_tensor_value_info(answer, TensorProto.FLOAT, ["n", *shape]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3]),
        ],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]), *weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def tiny_model(
    folder: Path,
    registry: Registry,
    name: str = "tiny",
    labels: tuple[str, ...] = COLOURS,
    *,
    size: int = 32,
    bias: tuple[float, ...] | None = None,
    threshold: float | None = None,
    abstain_below: float | None = None,
    baseline: bool = False,
    change: Callable[[Path], None] | None = None,
) -> str:
    """Register a tiny model through the real registry; returns its tag.

    `bias` shifts the logits: (0, 9, 0) makes a model that says green to nearly everything. `folder`
    is where the files are made; they move into the store. `change` may rewrite the graph's file
    before anything is computed from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tiny_graph(folder / GRAPH_FILE, size, bias or (0.0,) * len(labels))
    if change is not None:
        change(folder / GRAPH_FILE)
    metrics = Metrics(
        split="test",
        images=3,
        accuracy=1.0,
        macro_f1=1.0,
        log_loss=0.1,
        per_class=[],
        confusion_matrix=[],
    )
    return _register(
        folder,
        registry,
        name,
        size,
        labels=list(labels),
        threshold=threshold,
        abstain_below=abstain_below,
        baseline=baseline,
        metrics=metrics,
    )


def tiny_regression(
    folder: Path,
    registry: Registry,
    name: str = "bright",
    *,
    size: int = 32,
    output_range: tuple[float, float] = (0.0, 10.0),
    half_width: float | None = 1.2,
    bias: float = 0.0,
) -> str:
    """The same for a regression: how bright a picture is, within `output_range`, plus `bias`.

    Prediction intervals are the score +- `half_width`; None makes a model without.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tiny_score_graph(folder / GRAPH_FILE, size, *output_range, bias)
    metrics = RegressionMetrics(
        split="test",
        images=3,
        mae=0.4,
        rmse=0.5,
        r2=0.9,
        spearman=0.95,
        mae_of_median=2.5,
        coverage=0.9,
    )
    return _register(
        folder,
        registry,
        name,
        size,
        task="regression",
        target="brightness",
        output_range=output_range,
        interval=None if half_width is None else Interval(coverage=0.9, half_width=half_width),
        metrics=metrics,
    )


def _register(folder: Path, registry: Registry, name: str, size: int, **told: Any) -> str:
    """Add golden images and a card, of which `told` are some fields, to the graph in `folder`."""
    graph = (folder / GRAPH_FILE).read_bytes()
    preprocessing = Preprocessing(height=size, width=size)
    card = ModelCard(
        tag=registry.new_tag(name),
        preprocessing=preprocessing,
        embedding_dim=3,
        recipe={"kind": "cnn", "lr": 0.01, "augment": None},
        dataset=DatasetLineage(tag="colours:0123456789ab", images=30, splits={"test": 3}, seed=0),
        graph_sha256=hashlib.sha256(graph).hexdigest(),
        parity=0.0,
        versions={"onnxruntime": ort.__version__},
        duration_seconds=1.5,
        **told,
    )
    session = ort.InferenceSession(graph)
    answer = answer_name(card)
    goldens = []
    (folder / GOLDEN_DIR).mkdir()
    for number in range(8):
        file = f"{number:02d}.jpg"
        data = jpeg(COLOURS[number % 3], (40 + number, 30))
        (folder / GOLDEN_DIR / file).write_bytes(data)
        pixels = images.load(data, preprocessing)[None]
        (row,) = session.run([answer], {"images": pixels})[0].tolist()
        goldens.append(Golden(file=file, **{answer: row}))
    text = GoldenSet(images=goldens).model_dump_json(exclude_none=True)
    (folder / GOLDEN_DIR / GOLDEN_FILE).write_text(text)
    return registry.register(folder, card)
