"""Findings: what is wrong with a dataset, read from its index alone.

    types -> copies, classes, outliers, kept -> finder -> mending

`find` is loaded when it is first used, so that a server that only states the types needs no NumPy.
"""

from typing import TYPE_CHECKING, Any

from imgcls.findings.types import Finding, Findings, Fix, Fixed, Kind

if TYPE_CHECKING:
    from imgcls.findings.finder import find

__all__ = ["Finding", "Findings", "Fix", "Fixed", "Kind", "find"]


def __getattr__(name: str) -> Any:
    if name != "find":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from imgcls.findings.finder import find

    return find
