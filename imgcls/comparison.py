"""Comparison: two models on the same test images, such as before and after a dataset was fixed.

Two cards cannot be compared where their test images differ, and copies of training images flatter
the one that was trained on them. So both models answer the test images of the newer one's dataset,
without those that either was trained on.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from imgcls.card import ModelCard
from imgcls.data import Dataset, DatasetStore
from imgcls.engine import Engine
from imgcls.errors import BadArgument
from imgcls.offline import predict
from imgcls.registry import Registry

Values = npt.NDArray[np.float64]
_RESAMPLES = 1_000
_MOST_FIXES = 100
"""Versions that are followed back."""


class Figure(BaseModel):
    """Of one kind, such as accuracy."""

    model_config = ConfigDict(frozen=True)

    old: float
    new: float
    difference: tuple[float, float]
    """95% interval of new less old, over images drawn anew (paired bootstrap)."""


class Comparison(BaseModel):
    model_config = ConfigDict(frozen=True)

    old: str
    """Tag of a model."""
    new: str
    dataset: str
    """Whose test images both answered."""
    images: int
    left_out: int
    """Test images that one of the models was trained on."""
    own: dict[str, dict[str, float]]
    """By model, the figures of its card: on its own test images."""
    figures: dict[str, Figure]
    """accuracy and macro_f1; mae of a regression."""

    def lines(self) -> list[str]:
        """For people."""
        told = [
            f"{self.images:,} test images of {self.dataset}, of which neither has seen a copy"
            + (f" ({self.left_out:,} left out)" if self.left_out else "")
        ]
        for name, figure in self.figures.items():
            low, high = figure.difference
            sure = "" if low > 0 or high < 0 else ", which may be chance"
            told.append(
                f"{name}: {figure.old:.4f} before, {figure.new:.4f} after; difference "
                f"{low:+.4f} to {high:+.4f}{sure}"
            )
        for tag, figures in self.own.items():
            own = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            told.append(f"on its own test images {tag} had {own}")
        return told


def compare(
    old: str, new: str, *, registry: Registry | None = None, store: DatasetStore | None = None
) -> Comparison:
    """Both models on the test images of `new`, by the labels that its dataset has now.

    Classes that a fix has merged since count as one. Raises `ModelNotFound`, `DatasetNotFound`,
    and `BadArgument` where the two cannot be compared.
    """
    registry, store = registry or Registry(), store or DatasetStore()
    cards = [registry.get(tag) for tag in (old, new)]
    if cards[0].task != cards[1].task:
        raise BadArgument(f"{cards[0].tag} and {cards[1].tag} are of different tasks.")
    data = cards[1].dataset
    seen = {name for card in cards for name in _trained_on(store, card)}
    group = data.group.partition("==")[2] if data.group else None
    with store.open(data.tag, seed=data.seed, group=group) as dataset:
        test = dataset.rows("test")
        fresh = [
            not seen & {dataset.picture(row), dataset.content_hash(row)} for row in test.tolist()
        ]
        rows = test[fresh]
        if not len(rows):
            raise BadArgument(
                f"Both models were trained on all test images of {data.tag}; there is nothing left "
                "to compare them by."
            )
        merges = _merges(store, data.tag, cards[0].dataset.tag)
        engines = [Engine.load(registry.folder(card.tag)) for card in cards]
        answers = [_answers(dataset, rows, engine, merges) for engine in engines]
        figures = _figures(dataset, rows, *answers)
    return Comparison(
        old=cards[0].tag,
        new=cards[1].tag,
        dataset=data.tag,
        images=len(rows),
        left_out=len(test) - len(rows),
        own={card.tag: card.metrics.headline() for card in cards},
        figures=figures,
    )


def _trained_on(store: DatasetStore, card: ModelCard) -> Iterator[str]:
    """Names of the pictures that a model was trained on or chosen by."""
    index = store.index(card.dataset.tag, seed=card.dataset.seed)
    index = index.filter(pc.not_equal(index["split"], "test"))
    for column in ("content_hash", "twins"):
        yield from index[column].drop_null().to_pylist()


def _merges(store: DatasetStore, tag: str, back_to: str) -> list[dict[str, str]]:
    """What each list of fixes between two versions merges, the oldest list first."""
    steps: list[dict[str, str]] = []
    while tag != back_to and len(steps) < _MOST_FIXES and (made := store.fixes(tag)) is not None:
        tag, rows = made
        steps.insert(0, {row.path: row.value for row in rows if row.action == "merge"})
    return steps


def _now(label: str | None, merges: list[dict[str, str]]) -> str | None:
    """The class that holds the images of a class now."""
    for into in merges:
        while label in into:  # a list that goes in a circle was refused
            label = into[label]
    return label


def _answers(
    dataset: Dataset, rows: npt.NDArray[np.int64], engine: Engine, merges: list[dict[str, str]]
) -> Values | list[str | None]:
    """Labels, or scores `[n]`."""
    items = ((dataset.name(row), partial(dataset.read, row)) for row in rows.tolist())
    answers = list(predict(engine, items))
    if dataset.task == "regression":
        scores = [np.nan if one is None else one for part in answers for one in part.scores]
        return np.array(scores, np.float64)
    return [_now(label, merges) for part in answers for label in part.labels]


def _figures(
    dataset: Dataset,
    rows: npt.NDArray[np.int64],
    old: Values | list[str | None],
    new: Values | list[str | None],
) -> dict[str, Figure]:
    draw = np.random.default_rng(0)
    drawn = draw.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), _RESAMPLES)
    weights = np.concatenate([np.ones((1, len(rows))), drawn.astype(np.float64)])
    if dataset.task == "regression":
        targets = dataset.targets(rows)
        errors = [np.abs(np.asarray(part, np.float64) - targets) for part in (old, new)]
        return {"mae": _figure(*(weights @ error / len(rows) for error in errors))}
    truth = dataset.index["label"].take(rows).to_pylist()
    names = {label: code for code, label in enumerate({*truth, *old, *new})}
    codes, *guesses = (np.array([names[x] for x in part]) for part in (truth, old, new))
    right = [weights @ (guess == codes) / len(rows) for guess in guesses]
    f1 = [_macro_f1(weights, codes, guess) for guess in guesses]
    return {"accuracy": _figure(*right), "macro_f1": _figure(*f1)}


def _macro_f1(
    weights: Values, truth: npt.NDArray[np.int64], guess: npt.NDArray[np.int64]
) -> Values:
    """`[k]`: the mean over the classes of the truth, for each row of weights."""
    f1 = np.zeros((len(weights), 0))
    for code in np.unique(truth):
        hits = weights @ ((truth == code) & (guess == code))
        total = weights @ (truth == code) + weights @ (guess == code)
        f1 = np.column_stack([f1, 2 * hits / np.maximum(total, 1)])
    mean: Values = f1.mean(axis=1)
    return mean


def _figure(old: Values, new: Values) -> Figure:
    """The first value is that of all images as they are, the others those of images drawn anew."""
    low, high = np.quantile((new - old)[1:], (0.025, 0.975)).tolist()
    return Figure(old=float(old[0]), new=float(new[0]), difference=(low, high))
