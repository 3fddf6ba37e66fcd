"""Requests: what each route of the service takes, and the answers that are files.

Answers in JSON are in `schemas.py`.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator

from imgcls.data.fix_list import FixRow
from imgcls.data.summary import DatasetSummary
from imgcls.files import NAME, VERSION
from imgcls.http import FileAnswer, FileField, FormRequest, JsonRequest
from imgcls.jobs import MAX_TIME_LIMIT, Tracker
from imgcls.recipes import DEFAULT_RECIPE
from imgcls.report import PLOTS
from imgcls.schemas import CARD_EXAMPLE
from imgcls.searches import Budget

# The patterns are for the OpenAPI document alone: `check_name` refuses in better words.
Name = Annotated[str, Field(json_schema_extra={"pattern": f"^{NAME}$"}, examples=["pets"])]
ModelTag = Annotated[
    str,
    Field(json_schema_extra={"pattern": f"^{NAME}(:({VERSION})?)?$"}, examples=[CARD_EXAMPLE]),
]
"""`name:version`, or `name` for its newest version."""
DatasetTag = Annotated[str, Field(examples=["pets:3f2a9c01d4e5"])]
"""`name:version`, or `name` for its newest version."""
JobId = Annotated[str, Field(examples=["20261121-083000-123456-a1b2"])]


class PredictRequest(FormRequest):
    file_fields: ClassVar[frozenset[str]] = frozenset({"images"})
    raw_field: ClassVar[str | None] = "images"

    images: list[FileField] = Field(
        description="One or more image files.", json_schema_extra={"minItems": 1}
    )
    model: ModelTag | None = Field(None, description="A model's tag; the active model if left out.")
    top_k: int | None = Field(None, description="Classes: keep only the k largest probabilities.")
    threshold: float | None = Field(None, description="Two classes: overrides the model's own.")


class UploadRequest(FormRequest):
    file_fields: ClassVar[frozenset[str]] = frozenset({"archive", "table"})
    max_mb: ClassVar[str] = "max_upload_mb"

    archive: FileField = Field(description="A zip or tar of images.")
    name: Name = Field(description="The dataset's name.")
    table: FileField = Field(
        default_factory=Path,  # left out, it is an empty list: see `_from_form`
        description="A CSV with a column `path` and fields such as `target`, a row an image; in "
        "place of a pattern.",
    )
    pattern: str | None = Field(
        None,
        description="Fields of the file names.",
        examples=["{id}_{gender}_{country}_{rate}_{votes}"],
    )
    target: str | None = Field(
        None, description="The field that is a number to be predicted.", examples=["rate"]
    )
    where: str | None = Field(
        None, description="What images must be to take part.", examples=["votes>=5"]
    )
    group: str | None = Field(
        None, description="The field that divides the images into groups.", examples=["gender"]
    )

    @field_validator("archive", "table", mode="wrap")
    @classmethod
    def _any_file(cls, value: Any, _: Any) -> Any:
        return value


class FitRequest(JsonRequest):
    dataset: DatasetTag
    name: Name = Field(description="The model's name in the store.")
    group: str | None = Field(
        None, description="Of a dataset in groups: the one to train on.", examples=["m"]
    )
    recipe: str | dict[str, Any] = Field(
        DEFAULT_RECIPE,
        description="A preset's name, or a configuration: a `preset` and what changes it, or a "
        "whole one with its `kind`.",
    )
    overrides: dict[str, Any] = Field({}, examples=[{"epochs": 20, "augment.rotation": 10}])
    time_limit: float | None = Field(
        None, gt=0, le=MAX_TIME_LIMIT, description="Seconds; past them the job fails."
    )
    wait: bool = Field(False, description="Answer when the job is over, with the model's card.")
    baseline: bool = Field(False, description="Protect the model from removal.")
    seed: int = Field(0, ge=0, description="Seed of the splits.")
    track: list[Tracker] = Field([], description="Keep the figures of the run there too.")


class SearchRequest(JsonRequest):
    dataset: DatasetTag
    name: Name = Field(description="The model's name in the store, and the search's.")
    budget: Budget = Field(600.0, description="Seconds that all of it may take.")
    recipes: list[str] = Field(
        [], description="Presets to choose among; without any those that suit the data."
    )
    trials: int | None = Field(None, ge=1, le=100_000, description="At most so many trials.")
    fresh: bool = Field(False, description="Forget an earlier search of this name.")
    baseline: bool = Field(False, description="Protect the model from removal.")
    seed: int = Field(0, ge=0, description="Seed of the splits.")
    track: list[Tracker] = Field([], description="Keep the figures of all trials there too.")


class SearchName(JsonRequest):
    name: Name = Field(description="The model's name in the search.")


class DatasetRequest(JsonRequest):
    dataset: DatasetTag


class EdaRequest(JsonRequest):
    dataset: DatasetTag
    seed: int = Field(0, ge=0, description="Seed of the splits.")


class SamplesRequest(JsonRequest):
    dataset: DatasetTag
    label: str | None = Field(
        None, max_length=200, description="Only this class.", examples=["cat"]
    )
    split: Literal["train", "val", "test"] | None = Field(None, description="Only this split.")
    count: int = Field(8, ge=1, le=20, description="Images of each class.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the choice, and of the splits.")


class SamplesAnswer(FileAnswer):
    media_types: ClassVar[tuple[str, ...]] = ("image/png",)


class PageAnswer(FileAnswer):
    media_types: ClassVar[tuple[str, ...]] = ("text/html",)


class DiffRequest(JsonRequest):
    old: DatasetTag
    new: DatasetTag
    seed: int = Field(0, ge=0, description="Seed of the splits.")


class FindingsRequest(JsonRequest):
    dataset: DatasetTag
    min_confidence: float = Field(0, ge=0, le=1, description="Only findings that are so sure.")
    seed: int = Field(0, ge=0, description="Seed of the splits.")


class FixRequest(JsonRequest):
    dataset: DatasetTag
    fixes: list[FixRow] | None = Field(
        None,
        description="What to change, as a new version. Left out, fixes are proposed, and "
        "applied where `apply` says so.",
        examples=[[{"path": "train/cat/01.jpg", "action": "drop"}]],
    )
    apply: bool = Field(
        False, description="Without `fixes`: apply all that is proposed.", examples=[True]
    )
    min_confidence: float = Field(
        0.9, ge=0, le=1, description="Of the findings that fixes are proposed for."
    )
    seed: int = Field(0, ge=0, description="Seed of the splits.")


class JobRequestById(JsonRequest):
    id: JobId


class ModelRequest(JsonRequest):
    tag: ModelTag


class ReportRequest(JsonRequest):
    tag: ModelTag
    plot: str | None = Field(
        None,
        description="A plot's name, for a PNG: " + ", ".join(PLOTS) + ". The whole report as HTML "
        "if left out.",
        examples=["confusion"],
    )


class ReportAnswer(FileAnswer):
    media_types: ClassVar[tuple[str, ...]] = ("text/html", "image/png")


class ShadowRequest(JsonRequest):
    tag: ModelTag | None = Field(description="The model that shadows; null stops the shadow.")
    rate: float = Field(0.05, gt=0, le=1, description="Share of the answered images it scores.")


class NameFilter(JsonRequest):
    name: Name | None = Field(None, description="Only models of this name.")


class Nothing(JsonRequest):
    """An empty JSON object, or no body at all."""


class DatasetsResponse(BaseModel):
    datasets: list[DatasetSummary]
    """Newest first."""
