"""Copies: one picture in several files, and whether that makes a dataset lie.

A copy in another split lets a model be tested on what it was trained on; a copy under another
label teaches it both. Copies have the very same bytes, or look the same: in the grey cells of the
index (`imgcls.data.twins`), and then in a close look at the pictures themselves.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from imgcls.data.columns import codes
from imgcls.data.twins import SURE, Pairs, components, find_twins
from imgcls.findings.close_look import pictures
from imgcls.findings.types import LISTED, Finding, Fix, Kind

if TYPE_CHECKING:
    import pyarrow as pa

    from imgcls.data import Dataset

Ints = npt.NDArray[np.int64]

_HELD_OUT = ("train", "val", "test")
"""A copy stays where it is the most precious: test figures stay comparable."""
_SIDES = ("width", "height")
_CROWD, _CROWDED = 10, 0.85
"""Files of different bytes from which on what looks the same is rather a fixed scene or a film than
copies, and how sure it is then."""
_LOOKED_AT, _LOOKED_AT_IN_ALL = 100, 100_000
"""Files that are looked at closely, in one group and in all."""
_LABELS = 20
"""Of one picture, that are looked at in pairs."""
_SPREAD = 0.1
"""Of targets, in their standard deviations, that copies may have without contradiction."""


class Copies:
    """Groups of readable images that are one picture."""

    def __init__(self, dataset: "Dataset") -> None:
        index = dataset.index
        self._dataset = dataset
        readable = index["error"].is_null().to_numpy()
        self._content = codes(index["content_hash"])
        self._paths = index["path"].to_pylist()
        self._labels = index["label" if dataset.task == "classification" else "target"].to_pylist()
        self._splits = index["split"].to_pylist()
        sides = (index[name].fill_null(0).to_numpy().astype(np.int64) for name in _SIDES)
        self._pixels = np.prod(list(sides), axis=0)
        self._tolerance = 0.0
        if dataset.task == "regression":
            self._tolerance = _SPREAD * float(np.std(np.array(self._labels)[readable]))
        self.groups = list(self._closely(_groups(index, readable, self._content)))

    def _closely(self, groups: list["_Group"]) -> Iterator["_Group"]:
        """What a close look leaves of groups that are surely one picture by their grey cells: each
        then has one that all others were compared with."""
        seen = 0
        for group in groups:
            files = self._one_of_each(group.rows)
            if group.confidence < SURE or len(files) == 1:
                yield group
                continue
            seen += len(files)
            if len(files) > _LOOKED_AT or seen > _LOOKED_AT_IN_ALL:
                yield _Group(group.rows, _CROWDED)
                continue
            for same in pictures(self._dataset, files):
                contents = {self._content[row] for row in same}
                rows = [row for row in group.rows if self._content[row] in contents]
                if len(rows) > 1:
                    sure = 1.0 if len(same) == 1 else group.confidence
                    yield _Group(rows, _CROWDED if len(same) >= _CROWD else sure)

    def _one_of_each(self, rows: list[int]) -> list[int]:
        """A row of each content, those that are best kept first."""
        first: dict[int, int] = {}
        for row in sorted(rows, key=self._worth, reverse=True):
            first.setdefault(self._content[row], row)
        return list(first.values())

    def _worth(self, row: int) -> tuple[int, int, int]:
        """The larger, the rather a copy is kept: in the split that measures, and the largest."""
        return _HELD_OUT.index(self._splits[row]), int(self._pixels[row]), -row

    def shared(self) -> dict[tuple[str, str], int]:
        """How many pictures lie surely under both of two labels, by the labels in order."""
        found: Counter[tuple[str, str]] = Counter()
        if self._dataset.task == "regression":
            return found
        for group in self.groups:
            if group.confidence >= SURE:
                labels = sorted({self._labels[row] for row in group.rows})
                found.update(combinations(labels[:_LABELS], 2))
        return found

    def findings(self, merged: Mapping[str, str]) -> Iterator[Finding]:
        """One for each group. `merged` are labels that stand for others: they contradict none."""
        for group in self.groups:
            yield self._finding(group, merged)

    def _finding(self, group: "_Group", merged: Mapping[str, str]) -> Finding:
        rows = group.rows
        exact = len({self._content[row] for row in rows}) == 1
        labels = [merged.get(self._labels[row], self._labels[row]) for row in rows]
        splits = [self._splits[row] for row in rows]
        what = "The same image" if exact else "The same picture"
        if group.confidence < SURE:
            what = "A picture that looks nearly the same"
        kind: Kind = "exact_duplicate" if exact else "near_duplicate"
        message = f"{what} is in {len(rows):,} files."
        inside = sorted(set(splits), key=_HELD_OUT.index)
        if self._contradict(labels):
            kind = "label_conflict"
            under = ", ".join(str(label) for label in sorted(set(labels))[:5])
            message = f"{what} is labelled {under}."
        elif len(inside) > 1:
            kind = "leak"
            message = f"{what} is in {' and '.join(inside)}."
        return Finding(
            kind=kind,
            paths=[self._paths[row] for row in rows[:LISTED]],
            confidence=round(group.confidence, 3),
            message=message,
            fix=self._fix(kind, group, labels, exact),
        )

    def _contradict(self, labels: Sequence[str | float]) -> bool:
        if self._dataset.task == "classification":
            return len(set(labels)) > 1
        targets = np.array(labels, dtype=np.float64)
        return float(np.ptp(targets)) > self._tolerance

    def _majority(self, labels: Sequence[str | float]) -> list[int]:
        """Places of the labels that agree and are more than any others that do; none for a tie."""
        if self._dataset.task == "classification":
            values, places = np.unique(labels, return_inverse=True)
            alike = [np.flatnonzero(places == value) for value in range(len(values))]
        else:
            targets = np.array(labels, dtype=np.float64)
            order = np.argsort(targets, kind="stable")
            apart = np.flatnonzero(np.diff(targets[order]) > self._tolerance) + 1
            alike = np.split(order, apart)
        most, *others = sorted(alike, key=len, reverse=True)
        # Targets of which each agrees with the next, and not all with all, say nothing.
        tie = any(len(other) == len(most) for other in others)
        if tie or self._contradict([labels[int(at)] for at in most]):
            return []
        return sorted(most.tolist())

    def _fix(self, kind: Kind, group: "_Group", labels: list[str], exact: bool) -> Fix | None:
        """One copy stays: in the split that measures, and the largest; of contradicting labels the
        one that most copies have. Where there is none, copies of the same bytes go, and others are
        left to a person. What is not sure loses no image."""
        rows = group.rows
        if group.confidence < SURE:
            if kind != "leak":
                return None
            to = max((self._splits[row] for row in rows), key=_HELD_OUT.index)
            others = [row for row in rows if self._splits[row] != to]
            return Fix(action="move", paths=[self._paths[row] for row in others], value=to)
        keep = list(range(len(rows)))
        if kind == "label_conflict":
            keep = self._majority(labels)
            if not keep and not exact:
                return None
        best = max(keep, key=lambda at: self._worth(rows[at]), default=None)
        gone = [self._paths[row] for at, row in enumerate(rows) if at != best]
        return Fix(action="drop", paths=gone)


@dataclass(frozen=True, slots=True)
class _Group:
    rows: list[int]
    """In path order."""
    confidence: float
    """Of the pair that it hangs together by least; 1 for equal bytes."""


def _groups(index: "pa.Table", readable: npt.NDArray[np.bool_], content: Ints) -> list[_Group]:
    """First all that are surely one picture, then those of them that perhaps are."""
    # Whoever has no twin was found to have none when the index was built.
    rows = np.flatnonzero(readable & index["twins"].is_valid().to_numpy())
    pairs = find_twins(index.take(rows)).at(rows)
    _, first, inverse = np.unique(content, return_index=True, return_inverse=True)
    head = np.where(readable, first[inverse], np.arange(len(index)))
    sure = components(len(index), pairs.of(SURE))
    groups = _connected(sure[head], sure, pairs.of(SURE), 1.0)
    between = sure[pairs.first] != sure[pairs.second]
    unsure = Pairs(pairs.first[between], pairs.second[between], pairs.confidence[between])
    loose = components(len(index), pairs)
    perhaps = _connected(loose[head], loose, unsure, SURE)
    return groups + [group for group in perhaps if group.confidence < SURE]


def _connected(root: Ints, of_pair: Ints, pairs: Pairs, most: float) -> list[_Group]:
    """Rows of each root with two and more."""
    weakest = np.full(len(root), most)
    np.minimum.at(weakest, of_pair[pairs.first], pairs.confidence)
    order = np.argsort(root, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(root[order])) + 1)
    return [_Group(part.tolist(), float(weakest[root[part[0]]])) for part in parts if len(part) > 1]
