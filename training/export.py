"""From a torch `Network` to the one ONNX graph that is served, checked against its source.

`write_graph` exports, `compare` proves that the graph answers as the training source did, and
`write_goldens` stores a few images with the graph's answers for every later load to replay.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import nn
from torch.export import Dim

from imgcls import images
from imgcls.card import GOLDEN_DIR, GOLDEN_FILE, Golden, GoldenSet, Preprocessing
from imgcls.errors import ParityFailed
from training.loader import Pixels, Source
from training.networks import Network

Floats = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]

PARITY_TOLERANCE = 1e-4
"""Largest absolute difference of probabilities between graph and source; of scores, as a share of
their range."""
_TIE = 1e-6
"""Two classes closer than this have no winner."""
_BATCH = 64
GOLDEN_COUNT = (8, 16)
"""Fewest and most golden images; between them, one for each class."""
GOLDEN_BYTES = 200_000
"""Files up to this size are preferred."""
_EXTENSIONS = {"JPEG": "jpg", "TIFF": "tif"}


def write_graph(network: Network, preprocessing: Preprocessing, path: Path) -> None:
    """Export to one file of ONNX at `path`.

    Input `images` uint8 `[n, H, W, 3]`; outputs `probabilities` float32 `[n, C]` or `score` float32
    `[n]`, and `embedding` float32 `[n, D]`; `n` is free.
    """
    module_graph(network, preprocessing, [network.answer, "embedding"]).save(str(path))


def module_graph(
    module: nn.Module, preprocessing: Preprocessing, outputs: Sequence[str]
) -> torch.onnx.ONNXProgram:
    """A module on `images` uint8 `[n, H, W, 3]` as a graph in memory; `n` is free."""
    # A batch of one would be taken for a constant.
    example = torch.zeros((2, preprocessing.height, preprocessing.width, 3), dtype=torch.uint8)
    module = module.cpu().eval().to(memory_format=torch.contiguous_format)
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=list(outputs),
            dynamic_shapes=({0: Dim("n")},),
        )
    assert program is not None
    return program


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress and passes on the deprecations of its own dependencies."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class Graph:
    """An exported graph under ONNX Runtime on the CPU, as the comparison runs it."""

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        """`threads` of one run; 0 takes all cores."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()][:2]

    def run(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """`uint8 [n, H, W, 3]` to probabilities `float32 [n, C]`, or scores `[n]`, and embedding
        `[n, D]`.
        """
        parts = [
            self._session.run(self._outputs, {"images": pixels[start : start + _BATCH]})
            for start in range(0, len(pixels), _BATCH)
        ]
        return np.concatenate([a for a, _ in parts]), np.concatenate([e for _, e in parts])


def compare(
    graph: Floats, source: Floats, *, output_range: tuple[float, float] | None = None
) -> float:
    """Largest absolute difference of two arrays of probabilities `[n, C]`, or of scores `[n]`.

    Raises `ParityFailed` where it exceeds `PARITY_TOLERANCE`, which for scores is a share of
    `output_range` or else of the largest one, or where a label differs that is not a tie.
    """
    if graph.shape != source.shape:
        raise ParityFailed(
            f"The exported graph gives answers of shape {graph.shape}, its source {source.shape}."
        )
    difference = float(np.abs(graph - source).max())
    allowed = PARITY_TOLERANCE
    if source.ndim == 1:
        low, high = output_range or (0.0, float(np.abs(source).max()))
        allowed *= high - low
    if not difference <= allowed:  # not a number counts as different
        raise ParityFailed(
            "The exported graph does not answer as the trained network does: answers "
            f"differ by up to {difference:.2g}, and at most {allowed:.0e} is allowed."
        )
    if source.ndim == 1:
        if output_range is not None and not (
            np.float32(output_range[0]) <= graph.min() <= graph.max() <= np.float32(output_range[1])
        ):
            raise ParityFailed(f"The exported graph gives scores outside the range {output_range}.")
        return difference
    top_two = np.sort(source, axis=1)[:, -2:]
    clear = top_two[:, 1] - top_two[:, 0] > _TIE
    differing = int((graph.argmax(1) != source.argmax(1))[clear].sum())
    if differing:
        raise ParityFailed(
            f"The exported graph gives another label than the trained model on {differing} of "
            f"{len(source)} images."
        )
    return difference


def write_goldens(
    folder: Path,
    graph: Graph,
    source: Source,
    rows: npt.NDArray[np.int64],
    targets: Targets | Floats,
    preprocessing: Preprocessing,
    labels: list[str],
) -> GoldenSet:
    """Store 8 to 16 of `rows` under `folder/golden`, as they are encoded in the dataset.

    Classes take turns, in the order of `rows`, and without `labels`, in a regression, eighths of
    the targets; small files are preferred. Fewer rows than 8 give fewer images. The expected
    answers are the graph's own, from the stored bytes through `imgcls.images.load`.
    """
    target_dir = folder / GOLDEN_DIR
    target_dir.mkdir()
    names, pixels = [], []
    classes = targets if labels else _eighths(targets)
    for number, row in enumerate(_choose(source, rows, classes)):
        data = source.read(row)
        kind = images.probe(data).format
        names.append(f"{number:02d}.{_EXTENSIONS.get(kind, kind.lower())}")
        (target_dir / names[-1]).write_bytes(data)
        pixels.append(images.load(data, preprocessing))
    answers, _ = graph.run(np.stack(pixels))
    kind_of_answer = "probabilities" if labels else "score"
    goldens = GoldenSet(
        labels=labels,
        images=[
            Golden(file=name, **{kind_of_answer: answer})
            for name, answer in zip(names, answers.tolist(), strict=True)
        ],
    )
    (target_dir / GOLDEN_FILE).write_text(goldens.model_dump_json(indent=2, exclude_none=True))
    return goldens


def _eighths(scores: Targets | Floats) -> Targets:
    """To which eighth of all scores each one belongs, from the lowest to the highest."""
    ranks: Targets = scores.argsort(kind="stable").argsort(kind="stable")
    return ranks * GOLDEN_COUNT[0] // len(ranks)


def _choose(source: Source, rows: npt.NDArray[np.int64], targets: Targets | Floats) -> list[int]:
    fewest, most = GOLDEN_COUNT
    classes = {c: iter(rows[targets == c].tolist()) for c in np.unique(targets).tolist()}
    wanted = min(len(rows), max(fewest, min(most, len(classes))))
    chosen: list[int] = []
    large: list[int] = []
    while len(chosen) < wanted and classes:
        for c in list(classes):
            row = next(classes[c], None)
            if row is None:
                del classes[c]
            elif len(source.read(row)) > GOLDEN_BYTES:
                large.append(row)
            elif len(chosen) < wanted:
                chosen.append(row)
    return chosen + large[: wanted - len(chosen)]
