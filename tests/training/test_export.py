"""Exported graphs equal their source, and a difference is an error."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgcls import images
from imgcls.card import GRAPH_FILE, Preprocessing
from imgcls.errors import ParityFailed
from tests.fakes import jpeg, tiny_score_graph
from training.backbones import load_backbone
from training.export import Graph, compare, write_goldens, write_graph
from training.networks import Classifier, Normalise, cnn


@pytest.mark.parametrize("size", [8, 9, 33, 128])
def test_a_cnn_of_any_size_exports_silently_to_a_graph_that_equals_it(
    size: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = cnn(size, 3, width=0.5, dense=8, dropout=0.2).eval()
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_graph(network, Preprocessing(height=size, width=size), path)
    assert capfd.readouterr() == ("", "")
    assert [f.name for f in tmp_path.iterdir()] == ["model.onnx"]
    pixels = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), dtype=np.uint8)
    with torch.inference_mode():
        source, embedding = network(torch.from_numpy(pixels))
    got, got_embedding = Graph(path).run(pixels)
    assert compare(got, source.numpy()) < 1e-5
    assert np.abs(got_embedding - embedding.numpy()).max() < 1e-4


def test_a_timm_backbone_exports_too(tmp_path: Path) -> None:
    backbone = load_backbone("mobilenetv3_small_050", "none", image_size=32)
    assert backbone.library == "timm"
    network = Classifier(
        Normalise(backbone.mean, backbone.std), backbone.body, torch.nn.Linear(backbone.dim, 2)
    ).eval()
    write_graph(network, Preprocessing(height=32, width=32), tmp_path / "model.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        source = network(torch.from_numpy(pixels))[0].numpy()
    assert compare(Graph(tmp_path / "model.onnx").run(pixels)[0], source) < 1e-4


def test_comparison_refuses_differences_other_labels_and_not_a_number() -> None:
    source = np.array([[0.6, 0.4], [0.50002, 0.49998]], np.float32)
    assert compare(source + np.float32(1e-5), source) == pytest.approx(1e-5, rel=0.1)
    with pytest.raises(ParityFailed, match="differ by up to"):
        compare(source + np.float32(1e-3), source)
    with pytest.raises(ParityFailed, match="differ by up to"):
        compare(source * np.float32(np.nan), source)
    flipped = source.copy()
    flipped[1] = flipped[1][::-1]
    with pytest.raises(ParityFailed, match="another label"):
        compare(flipped, source)
    tie = np.array([[0.5, 0.5]], np.float32)
    assert compare(tie + np.array([[0, 1e-7]], np.float32), tie) < 1e-6


def test_scores_may_differ_by_a_share_of_their_range() -> None:
    source = np.array([2.0, 7.0, 10.0], np.float32)
    near, far = source - np.float32(9e-4), source - np.float32(2e-3)
    for output_range in (None, (0.0, 10.0)):
        assert compare(near, source, output_range=output_range) == pytest.approx(9e-4, rel=0.1)
        with pytest.raises(ParityFailed, match="differ by up to"):
            compare(far, source, output_range=output_range)
    assert compare(far, source, output_range=(0, 100)) == pytest.approx(2e-3, rel=0.1)
    with pytest.raises(ParityFailed, match="differ by up to"):
        compare(near, source, output_range=(2.0, 3.0))
    with pytest.raises(ParityFailed, match="differ by up to"):
        compare(source * np.float32(np.nan), source)
    with pytest.raises(ParityFailed, match="shape"):
        compare(source[:, None], source)
    with pytest.raises(ParityFailed, match="outside"):
        compare(source + np.float32(9e-4), source, output_range=(0.0, 10.0))


def test_golden_images_of_a_regression_are_spread_over_its_scores(tmp_path: Path) -> None:
    pictures = [jpeg(f"#{value:02x}{value:02x}{value:02x}") for value in range(0, 240, 6)]

    class Files:
        def read(self, row: int) -> bytes:
            return pictures[row]

    preprocessing = Preprocessing(height=16, width=16)
    tiny_score_graph(tmp_path / GRAPH_FILE, 16, 0, 10, 0)
    rows = np.random.default_rng(0).permutation(40)
    targets = (rows / 4).astype(np.float32)
    graph = Graph(tmp_path / GRAPH_FILE)
    goldens = write_goldens(tmp_path, graph, Files(), rows, targets, preprocessing, [])
    scores = [golden.score for golden in goldens.images]
    assert len(scores) == 8
    assert all(golden.probabilities is None for golden in goldens.images)
    stored = [pictures.index((tmp_path / "golden" / g.file).read_bytes()) for g in goldens.images]
    assert [row // 5 for row in stored] == list(range(8))
    pixels = np.stack([images.load(pictures[row], preprocessing) for row in stored])
    assert scores == graph.run(pixels)[0].tolist()
    assert '"probabilities"' not in (tmp_path / "golden" / "golden.json").read_text()


def test_golden_images_take_turns_over_classes_and_prefer_small_files(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)

    def png(size: tuple[int, ...]) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, size, dtype=np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    big = png((300, 300, 3))
    small = [png((8, 8, 3)) for _ in range(30)]

    class Files:
        def read(self, row: int) -> bytes:
            return big if row % 3 == 0 else small[row]

    torch.manual_seed(0)
    preprocessing = Preprocessing(height=8, width=8)
    write_graph(cnn(8, 3, width=0.5, dense=8, dropout=0), preprocessing, tmp_path / "model.onnx")
    rows, targets = np.arange(30), np.repeat(np.arange(3), 10)
    graph = Graph(tmp_path / "model.onnx")
    goldens = write_goldens(tmp_path, graph, Files(), rows, targets, preprocessing, ["a", "b", "c"])
    assert len(goldens.images) == 8
    stored = [(tmp_path / "golden" / golden.file).read_bytes() for golden in goldens.images]
    assert big not in stored
    assert {small.index(data) // 10 for data in stored} == {0, 1, 2}
