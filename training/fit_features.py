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
from imgcls.errors import BadDataset
from imgcls.recipes import FeaturesRecipe
from training import graphs, heads
from training.events import OnEvent, throttled
from training.features import Extractor, features, load_extractor
from training.features.compute import Elsewhere
from training.fitted import Fitted, default_side, device, device_name, output_range
from training.reduce import fit_pca

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


def fit_features(
    dataset: Dataset, recipe: FeaturesRecipe, emit: OnEvent, *, cluster: str | None = None
) -> Fitted:
    """Features, computed once for all splits of the dataset that a view may make, then what is
    fitted on top of them.

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
    pool = _pool(dataset, rows, whole=not extractor.fitted)
    report = throttled(emit, "features")
    with _elsewhere(dataset, cluster) as elsewhere:
        everything = features(
            extractor, dataset, pool, device=device(), progress=report, elsewhere=elsewhere
        )
    found = {split: _among(everything, pool, part) for split, part in rows.items()}
    parts: list[onnx.ModelProto] = []
    dim = extractor.dim
    train, counts = _counting(dataset, rows["train"])
    if len(train) < len(rows["train"]):
        found["train"] = found["train"][np.isin(rows["train"], train)]
    emit("training", progress=0.0)
    if recipe.reduce is not None:
        reduction = fit_pca(found["train"], recipe.reduce)
        reduced = graphs.runner(reduction.graph)
        found = {split: reduced(part) for split, part in found.items()}
        parts, dim = [*parts, reduction.graph], len(reduction.bias)
    problem = heads.Problem(
        (found["train"], dataset.targets(train)),
        (found["val"], dataset.targets(rows["val"])),
        classes,
        recipe.seed,
        emit,
        counts,
    )
    limits = output_range(dataset, recipe) if classes is None else None
    head = heads.fit(recipe.head, problem, output_range=limits)
    emit("evaluating", progress=0.0)
    last = len(parts) + len(head.parts)
    result: dict[str, tuple[int, graphs.Shape]] = (
        {"score": (last, ("n",))} if classes is None else {"probabilities": (last, ("n", classes))}
    )
    outputs = result | {"embedding": (len(parts), ("n", dim))}
    return Fitted(
        partial(_write, extractor, [*parts, *head.parts], outputs),
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


def _counting(dataset: Dataset, train: Rows) -> tuple[Rows, Floats | None]:
    """The training images that count at all, and what each of them counts (see
    `Dataset.weights`). Raises `BadDataset` where they leave nothing to tell apart."""
    counts = dataset.weights(train)
    if counts is None:
        return train, None
    counting = counts > 0
    if len(np.unique(dataset.targets(train[counting]))) < 2:
        raise BadDataset(
            f"The training images of {dataset.tag} whose weight is above 0 are all of one class or "
            "target; give others a weight too."
        )
    return train[counting], counts[counting]


def _pool(dataset: Dataset, rows: dict[str, Rows], *, whole: bool) -> Rows:
    """The rows that features are computed of, split by split: those of the `whole` dataset, which
    folds and learning curves then find computed, or just `rows`."""
    parts = list(rows.values())
    if whole:
        readable = dataset.index["error"].is_null().to_numpy()
        given = dataset.index["split"].to_numpy()
        parts = [np.flatnonzero(readable & (given == split)) for split in rows] + parts
    together = np.concatenate(parts)
    _, first = np.unique(together, return_index=True)
    pool: Rows = together[np.sort(first)]
    return pool


def _among(everything: Floats, pool: Rows, rows: Rows) -> Floats:
    """The features of `rows` among those of the `pool`; rows that lie together are not copied."""
    place = np.empty(int(pool.max()) + 1, np.int64)
    place[pool] = np.arange(len(pool))
    at = place[rows]
    if (np.diff(at) == 1).all():
        return everything[at[0] : at[-1] + 1]
    return everything[at]


def _write(
    extractor: Extractor,
    parts: list[onnx.ModelProto],
    outputs: dict[str, tuple[int, graphs.Shape]],
    path: Path,
) -> None:
    """One graph from images to answers; the embedding is what the head is given."""
    onnx.save(graphs.joined([extractor.graph, *parts], outputs), path)
