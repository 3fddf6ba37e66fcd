"""What the HTTP interface takes and gives, as types: the OpenAPI document is made from these."""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from imgcls.card import ModelCard
from imgcls.errors import BY_CODE, Conflict, ImgclsError, TrainingFailed

CARD_EXAMPLE = "pets:20261121083000a1b2c3"


class Prediction(BaseModel):
    """The answer for one image: a label with probabilities, a score, or an error.

    What does not apply is left out.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "label": "cat",
                "probability": 0.91,
                "probabilities": {"cat": 0.91, "dog": 0.07, "horse": 0.02},
            }
        }
    )

    label: str | None = None
    probability: float | None = None
    """Probability of `label`."""
    probabilities: dict[str, float] | None = None
    """By class, largest first; `top_k` keeps only the first ones."""
    abstained: bool | None = None
    """Whether `label` is less probable than the model needs to be sure; only of models that abstain
    at all. The label is then but the likeliest guess."""
    score: float | None = Field(None, examples=[7.3])
    """Of a regression, in units of its target, within the model's range."""
    interval: tuple[float, float] | None = Field(None, examples=[[6.1, 8.5]])
    """Holds the truth as often as the model's card says (`interval.coverage`), within its range."""
    error: str | None = Field(None, examples=["The JPEG image is damaged or cut short."])
    code: str | None = Field(None, examples=["broken_image"])


class PredictResponse(BaseModel):
    model: str = Field(examples=[CARD_EXAMPLE])
    """Tag of the model that made these predictions."""
    predictions: list[Prediction]
    """One for each image, in the order in which they were sent."""


class ErrorResponse(BaseModel):
    """Every refusal, whatever its status."""

    error: str
    """A sentence: what was wrong and what to do."""
    code: str
    """Stable; match on this."""
    detail: Any = None


class ActiveResponse(BaseModel):
    active: str | None = Field(examples=[CARD_EXAMPLE])
    """The active model after the call."""
    previous: str | None = None
    """The active model before the call."""


class ModelRow(BaseModel):
    """One line of `/list`; `/info` gives the whole card."""

    tag: str
    active: bool
    baseline: bool
    task: str
    recipe: str
    backbone: str | None
    labels: list[str]
    target: str | None = None
    """What a regression's score is."""
    output_range: tuple[float, float] | None = None
    """In which all scores of a regression lie."""
    metrics: dict[str, float]
    """accuracy, macro_f1 and log_loss; mae, rmse, r2 and spearman of a regression."""
    hyperparameters: dict[str, Any]
    dataset: str
    created_at: datetime
    duration_seconds: float

    @classmethod
    def of(cls, card: ModelCard, active: str | None) -> "ModelRow":
        return cls(
            tag=card.tag,
            active=card.tag == active,
            baseline=card.baseline,
            task=card.task,
            recipe=card.recipe_name,
            backbone=card.backbone,
            labels=card.labels,
            target=card.target,
            output_range=card.output_range,
            metrics=card.metrics.headline(),
            hyperparameters=card.hyperparameters,
            dataset=card.dataset.tag,
            created_at=card.created_at,
            duration_seconds=card.duration_seconds,
        )


class ListResponse(BaseModel):
    active: str | None
    models: list[ModelRow]
    """Newest first."""

    @classmethod
    def of(cls, cards: Iterable[ModelCard], active: str | None) -> "ListResponse":
        return cls(active=active, models=[ModelRow.of(card, active) for card in cards])


class RemoveResponse(BaseModel):
    removed: list[str]
    left: list[str]


class Opinion(BaseModel):
    """What one model says to an image."""

    model: str
    label: str | None = None
    probability: float | None = None
    """Of `label`."""
    abstained: bool | None = None
    score: float | None = None
    """Of a regression, in place of the label."""
    interval: tuple[float, float] | None = None


class Disagreement(BaseModel):
    """An image to which the shadow gave another label than the active model, or a score outside
    the active model's prediction interval."""

    time: datetime
    image: str
    """The file in `$IMGCLS_HOME/shadow/images/`, as it was sent."""
    active: Opinion
    shadow: Opinion


class ShadowCounts(BaseModel):
    """Images, over all workers."""

    scored: int = 0
    agreed: int = 0
    disagreed: int = 0
    failed: int = 0
    """The shadow could not answer, or is of another task than the active model."""
    dropped: int = 0
    """Chosen, but there was no time or room for them."""
    difference: float = 0.0
    """Of regressions: the sum of the absolute differences of the two scores."""


class ShadowReport(ShadowCounts):
    """What the newest shadow model has shown so far."""

    running: bool = False
    tag: str | None = Field(default=None, examples=[CARD_EXAMPLE])
    rate: float = 0.0
    """Share of the images answered by the active model that it is asked about."""
    since: datetime | None = None
    run: str = ""
    disagreements: list[Disagreement] = []
    """Newest first; only the newest are kept."""


State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Job(BaseModel):
    """Where a job stands now."""

    id: str
    name: str
    dataset: str
    recipe: str
    state: State
    stage: str
    progress: float | None = None
    """Share of the current stage that is done, 0 to 1."""
    epoch: int | None = None
    epochs: int | None = None
    metrics: dict[str, float] = {}
    """The newest value of every metric so far."""
    eta_seconds: float | None = None
    """Seconds left in the current stage, at its speed so far."""
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    tag: str | None = None
    """The model, once the job has succeeded."""
    code: str | None = None
    reason: str | None = None
    """Why it failed, in a sentence."""

    @property
    def over(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled")

    def failure(self) -> ImgclsError:
        """Why a job that is over made no model, as the error that it was."""
        reason = self.reason or f"The job {self.id} has {self.state}."
        kind = Conflict if self.state == "cancelled" else BY_CODE.get(self.code or "")
        if kind is None or kind.status >= 500:
            kind = TrainingFailed
        return kind(reason, detail={"job": self.model_dump(mode="json")})


def follow(look: Callable[[], Job], poll: float) -> Iterator[Job]:
    """Yield the job whenever it has changed, and last when it is over; look every `poll` s."""
    before: Job | None = None
    while True:
        job = look()
        if job != before:
            yield job
        if job.over:
            return
        before = job
        time.sleep(poll)


class JobsResponse(BaseModel):
    jobs: list[Job]
    """Newest first."""


class FitResponse(BaseModel):
    job: Job
    card: ModelCard | None = None
    """Only with `wait`."""
