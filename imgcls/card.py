"""ModelCard: what a model says about itself.

The card lies beside the graph as `card.json`. Everything that serving needs (labels,
preprocessing, threshold) and everything a person asks of a model (recipe, metrics, history,
lineage, versions) is in it; nothing else is.
"""

import hashlib
import math
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from imgcls.errors import BadArgument, BadModel

CARD_FILE = "card.json"
GRAPH_FILE = "model.onnx"
GOLDEN_DIR = "golden"
GOLDEN_FILE = "golden.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocessing(_Frozen):
    """How any picture becomes the `uint8 [height, width, 3]` array that the graph takes."""

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    resize: Literal["stretch", "pad", "crop"] = "stretch"
    """`stretch` ignores the aspect ratio; `pad` keeps all of the picture and fills with white;
    `crop` keeps the middle."""


class ClassMetrics(_Frozen):
    label: str
    precision: float
    recall: float
    f1: float
    support: int


Intervals = dict[str, tuple[float, float]]
"""By figure, where 95% of its values lie if the images are drawn anew (bootstrap)."""


class Metrics(_Frozen):
    """Measured on one held-out split that took no part in training or in model selection."""

    split: str
    images: int
    accuracy: float
    macro_f1: float
    log_loss: float
    per_class: list[ClassMetrics]
    confusion_matrix: list[list[int]]
    """Rows are the true classes, columns the predicted ones, both in the order of the labels."""
    roc_auc: float | None = None
    """Mean over the classes of each against the rest; null where no class can be ranked."""
    ece: float | None = None
    """Expected calibration error: how far the probability of a verdict is from the share of such
    verdicts that are right, over 15 bins (Naeini et al. 2015)."""
    intervals: Intervals = {}
    answered: float | None = None
    """Share of the images on which a model with `abstain_below` does not abstain."""
    answered_accuracy: float | None = None
    """Among those that are answered; null where none is."""

    def headline(self) -> dict[str, float]:
        """The figures that lists and progress show."""
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1, "log_loss": self.log_loss}


class RegressionMetrics(_Frozen):
    """Measured on one held-out split that took no part in training or in model selection."""

    split: str
    images: int
    mae: float
    """Mean absolute error, in units of the target."""
    rmse: float
    r2: float
    spearman: float
    """Rank correlation; 0 where one side never changes."""
    mae_of_median: float
    """What answering the median of the training targets would give."""
    coverage: float
    """Share of the images whose prediction interval holds the truth."""
    intervals: Intervals = {}

    def headline(self) -> dict[str, float]:
        """The figures that lists and progress show."""
        return {"mae": self.mae, "rmse": self.rmse, "r2": self.r2, "spearman": self.spearman}


class Interval(_Frozen):
    """A prediction interval, `score` +- `half_width`, by split conformal prediction on validation
    images (Vovk et al. 2005; Lei et al. 2018)."""

    coverage: float = Field(gt=0, lt=1)
    """Share of new images whose truth it is made to hold."""
    half_width: float = Field(ge=0)


class CurvePoint(_Frozen):
    """A point of a learning curve: the figures of a model of fewer training images."""

    images: int
    """It was trained on."""
    train: dict[str, float]
    """Figures on images that it was trained on."""
    test: dict[str, float]
    """Figures on the test images."""


class DatasetLineage(_Frozen):
    tag: str
    """`name:version`; the version is the hash of the content."""
    images: int
    splits: dict[str, int]
    seed: int
    pattern: str | None = None
    """Of the file names whose fields say labels, targets, splits, weights or groups."""
    table: str | None = None
    """BLAKE2b-160, hex, of the table that says them instead."""
    target: str | None = None
    """The field that is the target of a regression."""
    where: str | None = None
    """The filter that the images had to pass."""
    group: str | None = None
    """`field==value` of the group that the model is for."""
    fix: str | None = None
    """BLAKE2b-160, hex, of the fixes that made this version of the dataset from another."""


class Quantization(_Frozen):
    """What became of a graph's 8-bit form, measured on validation images beside the other."""

    kept: bool
    """Whether the model's graph is the 8-bit one."""
    images: int
    accuracy: float
    """Of the 8-bit graph."""
    accuracy_fp32: float
    largest_loss: float
    """Of accuracy, that was allowed."""
    speedup: float
    """Time of one image by the fp32 graph over that by the 8-bit one, on one thread."""


class ModelCard(_Frozen):
    schema_version: Literal[1] = 1
    tag: str
    """`name:version` in the BentoML model store."""
    task: Literal["classification", "regression"] = "classification"
    labels: list[str] = []
    """Of a classification, in the order of the graph's probabilities."""
    target: str | None = None
    """Of a regression: what the score is, as the dataset calls it."""
    output_range: tuple[float, float] | None = None
    """Of a regression: no score lies outside; the graph sees to that."""
    interval: Interval | None = None
    """Of a regression."""
    abstain_below: float | None = Field(default=None, ge=0, le=1)
    """Of a classification: a verdict less probable than this is an abstention."""
    temperature: float = Field(default=1.0, gt=0)
    """By which the logits are divided; it is in the graph."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Two classes only: `labels[1]` is the verdict when its probability reaches this."""
    preprocessing: Preprocessing
    embedding_dim: int = Field(ge=1)
    recipe: dict[str, Any]
    """The whole training configuration, defaults included; `kind` names the recipe."""
    backbone: str | None = None
    metrics: Metrics | RegressionMetrics
    fold_metrics: list[Metrics | RegressionMetrics] = []
    """Of further models, a fold each, on the images that they have not seen."""
    learning_curve: list[CurvePoint] = []
    """Of further models, on more and more of the training images."""
    history: list[dict[str, float]] = []
    """A row an epoch: `epoch`, `train_loss`, `val_loss`, `val_accuracy`, ..."""
    dataset: DatasetLineage
    baseline: bool = False
    """Protected: `remove` and `remove_all` leave it alone."""
    graph_sha256: str
    parity: float
    """Largest absolute difference of probabilities, or of scores in units of the target, fp32 graph
    against its training source."""
    quantization: Quantization | None = None
    """Where the recipe asked for 8 bits."""
    versions: dict[str, str] = {}
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    duration_seconds: float

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.task == "classification") != (len(self.labels) >= 2):
            raise ValueError("a classification has two classes or more, a regression none")
        if (self.task == "classification") != isinstance(self.metrics, Metrics):
            raise ValueError(f"the metrics are not those of a {self.task}")
        if any(type(fold) is not type(self.metrics) for fold in self.fold_metrics):
            raise ValueError(f"the folds are not those of a {self.task}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("two classes have the same label")
        if self.threshold is not None and len(self.labels) != 2:
            raise ValueError("a threshold is for two classes")
        if self.abstain_below is not None and self.task == "regression":
            raise ValueError("only a classification can abstain")
        if (self.output_range or self.interval) and self.task == "classification":
            raise ValueError("a range and an interval are for a regression")
        if self.output_range is not None:
            low, high = self.output_range
            if not 0 <= high - low < math.inf:
                raise ValueError("the range must be finite and end where it begins or above")
        return self

    def check_options(self, top_k: int | None, threshold: float | None) -> None:
        """Raises `BadArgument` for options of a prediction that this model cannot take."""
        if top_k is None and threshold is None:
            return
        if self.task == "regression":
            raise BadArgument(
                f"`top_k` and `threshold` are for classifications; {self.tag} is a regression: "
                "leave them out."
            )
        if top_k is not None and top_k < 1:
            raise BadArgument("`top_k` must be at least 1.")
        if threshold is None:
            return
        if len(self.labels) != 2:
            raise BadArgument(
                f"`threshold` is for models of two classes; {self.tag} has {len(self.labels)}: "
                "leave it out."
            )
        if not 0 <= threshold <= 1:
            raise BadArgument("`threshold` must lie between 0 and 1.")

    def place(self, score: float) -> float | None:
        """Where in the range a score lies, from 0 to 1; None without a range."""
        if self.output_range is None:
            return None
        low, high = self.output_range
        return (score - low) / (high - low) if high > low else 0.0

    def fold_summary(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation over the folds of each headline figure."""
        rows = [fold.headline() for fold in self.fold_metrics]
        summary = {}
        for name in rows[0] if rows else ():
            values = [row[name] for row in rows]
            summary[name] = (
                statistics.fmean(values),
                statistics.stdev(values) if len(values) > 1 else 0.0,
            )
        return summary

    @property
    def folds_told(self) -> str:
        """How many folds were measured, for people: `5`, or `3 of 5` where some had too few images
        to train on."""
        count, wanted = len(self.fold_metrics), self.recipe.get("folds")
        return str(count) if wanted in (None, count) else f"{count} of {wanted}"

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return {k: v for k, v in self.recipe.items() if k not in ("kind", "preset")}

    @property
    def recipe_name(self) -> str:
        """The preset's name, or the kind of a recipe of one's own."""
        return str(self.recipe.get("preset") or self.recipe.get("kind"))

    def save(self, folder: Path) -> None:
        (folder / CARD_FILE).write_text(self.model_dump_json(indent=2))

    @classmethod
    def load(cls, folder: Path) -> "ModelCard":
        """Raises `BadModel` where the folder holds no readable card."""
        path = folder / CARD_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as err:
            raise BadModel(f"{path} cannot be read: {err.strerror}.") from err
        except ValidationError as err:
            fault = err.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, fault["loc"]))
            raise BadModel(f"{path} is no card: {where} {fault['msg']}".rstrip() + ".") from err


def graph_sha256(path: Path) -> str:
    """SHA-256 of a graph's file, hex. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Golden(_Frozen):
    """One golden image: an encoded file in `golden/` and what the graph must answer to it."""

    file: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}\.[a-z]{2,5}$")
    probabilities: list[float] | None = None
    score: float | None = None
    """Of a regression, in place of the probabilities."""

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if (self.probabilities is None) == (self.score is None):
            raise ValueError("an image has either probabilities or a score")
        return self

    @property
    def answer(self) -> list[float] | float | None:
        return self.score if self.probabilities is None else self.probabilities


class GoldenSet(_Frozen):
    """`golden/golden.json`: 8 to 16 images replayed whenever a model is loaded."""

    schema_version: int = 1
    tolerance: float = Field(default=1e-3, ge=0, le=1e-2)
    """Largest absolute difference allowed on another machine or provider; of scores, as a share of
    the card's range, or else of the largest one here."""
    labels: list[str] | None = None
    """Those of the card, in its order: a card that was changed since gives itself away."""
    images: list[Golden]
