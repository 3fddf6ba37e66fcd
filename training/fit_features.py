"""Features recipes: compute features once, perhaps reduce them, fit a head on them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from imgcls.card import Preprocessing
from imgcls.data import Dataset
from imgcls.recipes import FeaturesRecipe
from training import graphs, heads
from training.events import OnEvent, throttled
from training.features import features, load_extractor
from training.features.compute import Elsewhere
from training.fitted import Fitted, default_side, device, device_name, output_range
from training.reduce import fit_pca

Floats = npt.NDArray[np.float32]


def fit_features(
    dataset: Dataset, recipe: FeaturesRecipe, emit: OnEvent, *, cluster: str | None = None
) -> Fitted:
    """Features, computed once, then what is fitted on top of them.

    With `cluster`, the address of one, Ray computes them: see `imgcls.scale.connect`.
    """
    classes = None if dataset.task == "regression" else len(dataset.labels)
    heads.check(recipe.head, classes)
    size = recipe.image_size or default_side(dataset)
    preprocessing = Preprocessing(height=size, width=size, resize=recipe.resize)
    emit("features", progress=0.0, message=device_name())
    rows = {split: dataset.rows(split) for split in ("train", "val", "test")}
    extractor = load_extractor(
        recipe.features, dataset, rows["train"], preprocessing, seed=recipe.seed
    )
    total = sum(len(part) for part in rows.values())
    found: dict[str, Floats] = {}
    done = 0
    with _elsewhere(dataset, cluster) as elsewhere:
        for split, part in rows.items():
            report = throttled(emit, "features", at=done / total, share=len(part) / total)
            found[split] = features(
                extractor, dataset, part, device=device(), progress=report, elsewhere=elsewhere
            )
            done += len(part)
    parts, dim = [extractor.graph], extractor.dim
    emit("training", progress=0.0)
    if recipe.reduce is not None:
        reduction = fit_pca(found["train"], recipe.reduce)
        reduced = graphs.runner(reduction.graph)
        found = {split: reduced(part) for split, part in found.items()}
        parts, dim = [*parts, reduction.graph], len(reduction.bias)
    problem = heads.Problem(
        (found["train"], dataset.targets(rows["train"])),
        (found["val"], dataset.targets(rows["val"])),
        classes,
        recipe.seed,
        emit,
    )
    limits = output_range(dataset, recipe) if classes is None else None
    head = heads.fit(recipe.head, problem, output_range=limits)
    emit("evaluating", progress=0.0)
    last = len(parts) - 1 + len(head.parts)
    result: dict[str, tuple[int, graphs.Shape]] = (
        {"score": (last, ("n",))} if classes is None else {"probabilities": (last, ("n", classes))}
    )
    outputs = result | {"embedding": (len(parts) - 1, ("n", dim))}
    return Fitted(
        partial(_write, [*parts, *head.parts], outputs),
        preprocessing,
        head.history,
        answers={split: head.answer(found[split]) for split in ("val", "test")},
        embedding_dim=dim,
        backbone=extractor.backbone,
        packages=(*extractor.packages, *head.packages),
    )


@contextmanager
def _elsewhere(dataset: Dataset, cluster: str | None) -> Iterator[Elsewhere | None]:
    if cluster is None:
        yield None
        return
    from imgcls.scale import connect, extract

    with connect(cluster):
        yield partial(extract, dataset)


def _write(
    parts: list[onnx.ModelProto], outputs: dict[str, tuple[int, graphs.Shape]], path: Path
) -> None:
    """One graph from images to answers; the embedding is what the head is given."""
    onnx.save(graphs.joined(parts, outputs), path)
