"""Faults: the findings of a dataset on its page, the pictures of each side by side."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from imgcls.data.twins import SURE
from imgcls.eda.pictures import Pictures
from imgcls.page import table, text

if TYPE_CHECKING:
    from imgcls.data import Dataset
    from imgcls.findings import Finding, Kind

_SHOWN = 18
"""Findings of a kind shown at most, the surest."""
_PICTURES = 8
"""Pictures of a finding at most."""

KINDS: "dict[Kind, tuple[str, str]]" = {
    "label_conflict": (
        "One image under several labels",
        "A model is taught both, and whichever it answers counts as wrong.",
    ),
    "leak": (
        "One image in several splits",
        "A model is tested on what it was trained on: its figures are better than it is.",
    ),
    "exact_duplicate": ("Exact copies", "Files of the same bytes, in one class and split."),
    "near_duplicate": ("Nearly the same image", "Resized or saved again."),
    "similar_classes": ("Classes that look like one", "By their names, or the images they share."),
    "mislabelled": (
        "Labels that are likely wrong",
        "A model that has not seen these images is sure of another label.",
    ),
    "unreadable": ("Files that cannot be read", "They take no part in training."),
    "tiny": ("Tiny images", ""),
    "blank": ("Blank images", ""),
    "odd_aspect": ("Very long or very high images", ""),
    "dark": ("Very dark images", ""),
    "blurred": ("Blurred images", ""),
}
"""Headings of the kinds of findings, in the order of the page, and why they matter."""


def overview(findings: Sequence["Finding"]) -> str:
    """How many of each kind there are."""
    if not findings:
        return "<h2>Findings</h2><p>Nothing was found to be wrong with it.</p>"
    surest = Counter(finding.kind for finding in findings if finding.confidence >= SURE)
    rows = [
        (
            KINDS[kind][0],
            f"{len(group):,}",
            f"{surest[kind]:,}",
            f"{sum(len(finding.paths) for finding in group):,}",
        )
        for kind, group in _by_kind(findings).items()
    ]
    columns = ("", "findings", f"confidence {SURE:.0%} or more", "images in them")
    return "<h2>Findings</h2>" + table(columns, rows)


def sections(dataset: "Dataset", findings: Sequence["Finding"]) -> list[str]:
    """One of each kind, with the surest findings."""
    kinds = _by_kind(findings)
    listed = kinds.pop("unreadable", [])
    parts = []
    shown = [finding for group in kinds.values() for finding in group[:_SHOWN]]
    pictures = Pictures(dataset, [path for finding in shown for path in _picked(finding)])
    for kind, group in kinds.items():
        cards = "".join(_card(finding, pictures) for finding in group[:_SHOWN])
        parts.append(_head(kind, len(group)) + f"<div class=cards>{cards}</div>")
    return [*parts, _files(listed)] if listed else parts


def _by_kind(findings: Sequence["Finding"]) -> "dict[Kind, list[Finding]]":
    """Those that occur, in the order of the page; the surest first."""
    groups: dict[Kind, list[Finding]] = {kind: [] for kind in KINDS}
    for finding in sorted(findings, key=lambda finding: -finding.confidence):
        groups[finding.kind].append(finding)
    return {kind: group for kind, group in groups.items() if group}


def _head(kind: "Kind", total: int) -> str:
    title, why = KINDS[kind]
    left = f" The {_SHOWN} surest of {total:,} are shown." if total > _SHOWN else ""
    return f"<h2>{title}</h2><p>{why}{left}</p>"


def _files(findings: "Sequence[Finding]") -> str:
    """There is nothing to be seen of what cannot be read."""
    rows = [(finding.paths[0], finding.message) for finding in findings[:_SHOWN]]
    return _head("unreadable", len(findings)) + table(("file", "why"), rows, "facts")


def _card(finding: "Finding", pictures: Pictures) -> str:
    figures = "".join(pictures.figure(path) for path in _picked(finding))
    more = len(finding.paths) - _PICTURES
    sure = "certain" if finding.confidence == 1 else f"{finding.confidence:.0%} sure"
    told = f"<b>{sure}</b> {text(finding.message)}"
    if more > 0:
        told += f" <small>{more:,} more files</small>"
    wide = " wide" if len(finding.paths) > 2 else ""
    return (
        f'<div class="card{wide}"><div class=told>{told}{_fix(finding)}</div>'
        f"<div class=strip>{figures}</div></div>"
    )


def _fix(finding: "Finding") -> str:
    if finding.fix is None:
        return ""
    files = finding.fix.paths
    others = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    value = "" if finding.fix.value is None else f" to {finding.fix.value}"
    named = f"{finding.fix.action} {files[0] if files else ''}{others}{value}"
    return f"<br><small>fix: {text(named)}</small>"


def _picked(finding: "Finding") -> list[str]:
    """Some of its images: the first, or of classes those that stand for all."""
    paths, last = finding.paths, len(finding.paths) - 1
    if finding.kind != "similar_classes" or len(paths) <= _PICTURES:
        return paths[:_PICTURES]
    return [paths[at * last // (_PICTURES - 1)] for at in range(_PICTURES)]


STYLE = """
.cards { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(16.5rem, 1fr)); }
.card { border: 1px solid #dde1e8; border-radius: 6px; padding: .6rem .8rem; min-width: 0; }
.card.wide { grid-column: 1 / -1; }
.card:not(.wide) .strip { grid-template-columns: 1fr 1fr; }
"""
