"""Everything that is wrong with a dataset, the surest first."""

from typing import TYPE_CHECKING

from imgcls.data.twins import SURE
from imgcls.findings.classes import find_similar_classes
from imgcls.findings.copies import Copies
from imgcls.findings.kept import kept
from imgcls.findings.outliers import find_outliers
from imgcls.findings.types import Finding, Fix

if TYPE_CHECKING:
    from imgcls.data import Dataset


def find(dataset: "Dataset") -> list[Finding]:
    """Faults of all images, sorted by confidence, the surest first.

    Likely wrong labels are among them once models have judged it (`training.mislabelled`).
    """
    copies = Copies(dataset)
    classes = list(find_similar_classes(dataset, copies.shared()))
    found = [
        *_unreadable(dataset),
        *copies.findings(_merged(classes)),
        *classes,
        *find_outliers(dataset),
        *_judged(dataset),
    ]
    return sorted(found, key=lambda finding: -finding.confidence)


def _merged(classes: list[Finding]) -> dict[str, str]:
    """By label, the one that surely stands for the same class."""
    found: dict[str, str] = {}
    for finding in classes:
        if finding.fix is not None and finding.confidence >= SURE:
            found.setdefault(finding.fix.paths[0], finding.fix.value or "")
    return {label: _end(label, found) for label in found}


def _end(label: str, merged: dict[str, str]) -> str:
    """Where merges lead: a class may go into one that goes itself."""
    seen = set()
    while label in merged and label not in seen:
        seen.add(label)
        label = merged[label]
    return label


def _judged(dataset: "Dataset") -> list[Finding]:
    found = kept(dataset.tag)
    there = set(dataset.index["path"].to_pylist()) if found else set()
    return [finding for finding in found if there.issuperset(finding.paths)]


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
