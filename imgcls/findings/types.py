"""What is wrong with a dataset, as types: the OpenAPI document needs these, and no arithmetic."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from imgcls.data.fix_list import Action, FixRow
from imgcls.data.summary import DatasetSummary

Kind = Literal[
    "unreadable",
    "label_conflict",
    "leak",
    "exact_duplicate",
    "near_duplicate",
    "similar_classes",
    "mislabelled",
    "tiny",
    "blank",
    "odd_aspect",
    "dark",
    "blurred",
]
Confidence = Annotated[float, Field(ge=0, le=1)]

LISTED = 1_000
"""Paths of one finding listed at most."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Fix(_Frozen):
    """What would mend a finding."""

    action: Action
    """`drop` images, `relabel` them, `move` them to another split, `merge` a class into another."""
    paths: list[str]
    """Which of the finding's images; of `merge`, the name of the class that goes."""
    value: str | None = None
    """The label, target, split or class that they get; null of `drop`."""


class Finding(_Frozen):
    """One fault of a dataset."""

    kind: Kind
    paths: list[str]
    """Its images, in path order, the first 1,000."""
    confidence: Confidence
    """How sure it is that this is a fault: 1 is certain."""
    message: str
    """A sentence for people."""
    fix: Fix | None = None
    """Null where only a person can say."""


class Findings(_Frozen):
    dataset: str
    """The whole tag."""
    total: dict[Kind, int]
    """Findings of each kind."""
    findings: list[Finding]
    """The first 1,000, the surest first."""


class Fixed(_Frozen):
    dataset: DatasetSummary | None
    """The new version; null where the fixes are but proposed."""
    total: int
    """How many fixes were applied or are proposed."""
    fixes: list[FixRow]
    """The first 5,000 of them; of those that are proposed, the surest first."""
