"""Everything that is wrong with a dataset, the surest first."""

from typing import TYPE_CHECKING

from imgcls.findings.copies import find_copies
from imgcls.findings.types import Finding, Fix

if TYPE_CHECKING:
    from imgcls.data import Dataset


def find(dataset: "Dataset") -> list[Finding]:
    """Faults of all images, sorted by confidence, the surest first."""
    found = [*_unreadable(dataset), *find_copies(dataset)]
    return sorted(found, key=lambda finding: -finding.confidence)


def _unreadable(dataset: "Dataset") -> list[Finding]:
    bad = dataset.index.filter(dataset.index["error"].is_valid())
    found = []
    for row in bad.select(["path", "error"]).to_pylist():
        path, reason = row["path"], row["error"].partition(": ")[2]
        fix = Fix(action="drop", paths=[path])
        found.append(
            Finding(kind="unreadable", paths=[path], confidence=1, message=reason, fix=fix)
        )
    return found
