"""Classes that look like one class: by their names, and by the pictures that they share."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from imgcls.findings.types import LISTED, Finding, Fix

if TYPE_CHECKING:
    from imgcls.data import Dataset

_SPELT = 0.9
"""Share of letters in common (`difflib`) from which on two long names are two spellings."""
_LONG = 8
"""Letters of a name from which on its spelling can be judged: skirt and shirt differ in one."""
_MOST = 500
"""Classes whose names are compared letter by letter."""
_SHARED, _SHARED_SURENESS = (0.02, 0.1, 0.5), (0.5, 0.8, 0.95)
"""Share of the smaller class that the larger one holds too, and how sure they are one."""


def find_similar_classes(
    dataset: "Dataset", shared: Mapping[tuple[str, str], int]
) -> Iterator[Finding]:
    """Pairs of classes that look like one, the surest first.

    `shared` is the number of pictures that lie under both labels, which are in order.
    """
    images = Counter(dataset.index["label"].to_pylist())
    sureness: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for pair, sure, why in _by_name(dataset.labels):
        sureness[pair].append((sure, why))
    for pair, count in shared.items():
        share = count / min(images[label] for label in pair)
        sure = float(np.interp(share, _SHARED, _SHARED_SURENESS, left=0))
        if sure and count > 1:
            sureness[pair].append((sure, f"{count:,} pictures lie under both"))
    found = []
    for pair, reasons in sureness.items():
        # Independent hints: together they are wrong only where each is.
        sure = 1 - float(np.prod([1 - sure for sure, _ in reasons]))
        kept, gone = sorted(pair, key=lambda label: (-images[label], label))
        why = " and ".join(why for _, why in reasons)
        found.append(
            Finding(
                kind="similar_classes",
                paths=_paths(dataset, gone),
                confidence=round(sure, 3),
                message=f"{gone!r} ({images[gone]:,} images) looks like {kept!r} "
                f"({images[kept]:,}): {why}.",
                fix=Fix(action="merge", paths=[gone], value=kept),
            )
        )
    yield from sorted(found, key=lambda finding: -finding.confidence)


def _by_name(labels: Iterable[str]) -> Iterator[tuple[tuple[str, str], float, str]]:
    plain = {label: _plain(label) for label in labels}
    stems = {label: _singular(name) for label, name in plain.items()}
    same: dict[str, list[str]] = defaultdict(list)
    for label, name in stems.items():
        same[name].append(label)
    for group in same.values():
        for one, other in combinations(sorted(group), 2):
            if plain[one] == plain[other]:
                yield (one, other), 0.97, "the names differ in case, spaces or accents"
            else:
                yield (one, other), 0.93, "one name is the plural of the other"
    if len(stems) > _MOST:
        return
    long = sorted(label for label, name in stems.items() if len(name) >= _LONG)
    for one, other in combinations(long, 2):
        left, right = stems[one], stems[other]
        if left == right or re.sub(r"\D", "", left) != re.sub(r"\D", "", right):
            continue
        if SequenceMatcher(None, left, right).ratio() >= _SPELT:
            yield (one, other), 0.7, "the names are spelt nearly the same"


def _plain(label: str) -> str:
    """Letters and digits in lower case, without accents."""
    text = unicodedata.normalize("NFKD", label).casefold()
    return "".join(char for char in text if char.isalnum()) or label


def _singular(name: str) -> str:
    """By the rules of English; wrong for some words, and for those of one class alike."""
    if len(name) < 4 or not name.endswith("s"):
        return name
    if name.endswith("ies"):
        return name[:-3] + "y"
    if name.endswith(("ches", "shes", "sses", "xes", "zes", "oes")):
        return name[:-2]
    return name if name.endswith(("ss", "us", "is")) else name[:-1]


def _paths(dataset: "Dataset", label: str) -> list[str]:
    rows = np.flatnonzero(dataset.index["label"].to_numpy() == label)[:LISTED]
    paths: list[str] = dataset.index["path"].take(rows).to_pylist()
    return paths
