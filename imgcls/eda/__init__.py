"""Exploratory data analysis: what a dataset holds, from its index alone.

    types, columns -> histograms -> statistics, targets -> duplicates -> report
    samples -> sheets
    charts, samples -> pictures -> faults -> html

`profile` is loaded when it is first used, so that a server that only states its type needs no
NumPy for it.
"""

from typing import TYPE_CHECKING, Any

from imgcls.eda.types import (
    DuplicateGroup,
    Duplicates,
    GroupStats,
    Profile,
    Range,
    Spread,
    TargetStats,
    Unreadable,
    UnreadableImage,
)

if TYPE_CHECKING:
    from imgcls.eda.report import profile

__all__ = [
    "DuplicateGroup",
    "Duplicates",
    "GroupStats",
    "Profile",
    "Range",
    "Spread",
    "TargetStats",
    "Unreadable",
    "UnreadableImage",
    "profile",
]


def __getattr__(name: str) -> Any:
    if name != "profile":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from imgcls.eda.report import profile

    return profile
