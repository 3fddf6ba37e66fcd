"""Classes that look like one class: by their names, and by the pictures that they share."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from itertools import combinations, product
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
_WORD = 3
"""Letters that a word has at least; X and XS are sizes."""
_APART = ("boxer", "brief", "custom", "glass", "good", "mean", "new", "short", "spectacle", "tight")
"""Words whose plural is a word of its own."""
_LETTER = re.compile(r"[^\W\d_]")
_ACCENTS = re.compile("([a-z\u00df-\u024f])[\u0300-\u036f]+")
_SPACES = re.compile(r"[\s_\u200b-\u200f\ufeff]+")
_SPACE = re.compile(r"(?<!\d) | (?!\d)")
_HYPHENS = re.compile(r"(?<=[^\W\d_])[-\u2010-\u2015.'\u2019]+(?=[^\W\d_])")
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
    spelt: dict[str, list[str]] = defaultdict(list)
    for label in sorted(labels):
        spelt[_plain(label)].append(label)
    for same in spelt.values():
        for one, other in combinations(same, 2):
            yield (one, other), 0.97, "the names differ in case, spaces or accents"
    plurals = [(one, many) for many in spelt for one in _singulars(many) if one in spelt]
    for one, many in plurals:
        sure = 0.93 if many.isalpha() else 0.7
        for pair in product(spelt[one], spelt[many]):
            yield _in_order(pair), sure, "one name is the plural of the other"
    if len(spelt) > _MOST:
        return
    long = sorted(name for name in spelt if len(name) >= _LONG)
    for left, right in combinations(long, 2):
        if (left, right) in plurals or _LETTER.sub("", left) != _LETTER.sub("", right):
            continue
        if SequenceMatcher(None, left, right).ratio() >= _SPELT:
            for pair in product(spelt[left], spelt[right]):
                yield _in_order(pair), 0.7, "the names are spelt nearly the same"


def _in_order(pair: tuple[str, str]) -> tuple[str, str]:
    return (min(pair), max(pair))


def _plain(label: str) -> str:
    """In lower case, without accents of Latin letters and what parts words; what stands beside
    digits stays, and so do signs: 1.5, -1, A+ and C# are other names than 15, 1, A and C. Single
    letters stay whole: A, a and ä are classes of an alphabet."""
    text = _ACCENTS.sub(r"\1", unicodedata.normalize("NFKD", label).casefold())
    text = _SPACE.sub("", _SPACES.sub(" ", text))
    text = _HYPHENS.sub("", text)
    return text if len(text) > 1 else _SPACES.sub("", unicodedata.normalize("NFKC", label)) or label


def _singulars(name: str) -> set[str]:
    """What `name` may be the regular plural of, by the rules of English."""
    if not name.endswith("s") or name.endswith("ss"):
        return set()
    found = {name[:-1]}
    if name.endswith(("ches", "shes", "ses", "xes", "zes", "oes")):
        found.add(name[:-2])
    if name.endswith("ies"):
        found.add(name[:-3] + "y")
    return {one for one in found if len(one) >= _WORD and one not in _APART}


def _paths(dataset: "Dataset", label: str) -> list[str]:
    rows = np.flatnonzero(dataset.index["label"].to_numpy() == label)[:LISTED]
    paths: list[str] = dataset.index["path"].take(rows).to_pylist()
    return paths
