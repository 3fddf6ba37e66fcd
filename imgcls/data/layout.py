"""Layout: from file names to (path, label, given split).

`label/photo.jpg`, optionally below split folders (`train|val|valid|validation|test/label/...`, any
case), optionally below wrapping folders that hold everything. Deeper folders belong to the label
above them.
"""

import unicodedata
from dataclasses import dataclass
from typing import TypeVar

from imgcls.errors import BadDataset

Value = TypeVar("Value")
SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
MAX_LABEL = 200
_JOINERS = dict.fromkeys(map(ord, "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"))
"""Invisible, and part of ordinary words in Persian and Hindi and of emoji; to be deleted."""
EXPECTED = (
    "Put the images of each class in a folder named after the class (cat/1.jpg, dog/2.jpg), "
    "if you like inside train, val and test folders (train/cat/1.jpg)."
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns over the images that take part."""

    rows: list[int]
    """Which of the given names these are."""
    paths: list[str]
    """Names without wrapping folders: the same for a folder and an archive of it."""
    labels: list[str]
    given: list[str | None]
    """The split that a folder, or a field, states."""
    loose: int
    """Images without a label, or that a filter leaves out."""
    targets: list[float] | None = None
    """Of a regression, whose labels are empty."""
    weights: list[float] | None = None
    groups: list[str] | None = None

    def take(self, order: list[int]) -> "Layout":
        """Some of the images, or all in another order."""
        if order == list(range(len(self.rows))):
            return self

        def chosen(column: list[Value]) -> list[Value]:
            return [column[i] for i in order]

        return Layout(
            chosen(self.rows),
            chosen(self.paths),
            chosen(self.labels),
            chosen(self.given),
            self.loose,
            self.targets and chosen(self.targets),
            self.weights and chosen(self.weights),
            self.groups and chosen(self.groups),
        )


def arrange(names: list[str], others: int = 0) -> Layout:
    """Labels and splits of the named images. `others` counts the files that are no images.

    Raises `BadDataset`, which says what is expected.
    """
    if not names:
        beside = f", only {others:,} other file{'s' * (others > 1)}" if others else ""
        raise BadDataset(f"There are no images{beside}. {EXPECTED}")
    # Folders are few where images are many: all that follows looks at folders.
    heads = [name.rpartition("/")[0] for name in names]
    folders = {head: [part for part in head.split("/") if part] for head in set(heads)}
    depth = _wrapping(list(folders.values()))
    split_layout = _is_split_layout(list(folders.values()), depth)
    need = depth + (2 if split_layout else 1)
    inside = {head: parts for head, parts in folders.items() if len(parts) >= need}
    rows = list(range(len(names)))
    if len(inside) < len(folders):
        rows = [row for row, head in enumerate(heads) if head in inside]
    loose = len(names) - len(rows)
    if loose > len(rows):
        example = next(n for n, head in zip(names, heads, strict=True) if len(folders[head]) < need)
        raise BadDataset(f"{loose:,} images lie in no class folder, {example!r} is one. {EXPECTED}")
    label_of = {head: class_name(parts[need - 1]) for head, parts in inside.items()}
    split_of: dict[str, str | None] = dict.fromkeys(inside)
    if split_layout:
        split_of = {head: _SPLIT_NAMES[parts[depth].lower()] for head, parts in inside.items()}
    found = sorted(set(label_of.values()))
    if len(found) < 2:
        raise BadDataset(f"Only one class was found, {found[0]!r}; two are needed. {EXPECTED}")
    if split_layout and "train" not in split_of.values():
        raise BadDataset("There is no train folder beside the val or test folder; add one.")
    path_of = {head: "/".join([*parts[depth:], ""]) for head, parts in inside.items()}
    if loose:
        names, heads = [names[row] for row in rows], [heads[row] for row in rows]
    paths = names
    if any(path != f"{head}/" for head, path in path_of.items()):
        paths = [path_of[h] + name[len(h) + 1 :] for name, h in zip(names, heads, strict=True)]
    labels = [label_of[head] for head in heads]
    return Layout(rows, paths, labels, [split_of[head] for head in heads], loose)


def _wrapping(folders: list[list[str]]) -> int:
    """How many top folders hold everything and are neither class nor split."""
    depth = 0
    while True:
        tops = {path[depth] for path in folders if len(path) > depth}
        below = {path[depth + 1].lower() for path in folders if len(path) > depth + 1}
        if len(tops) != 1 or not below:
            return depth
        only_splits = below <= _SPLIT_NAMES.keys()
        if tops.pop().lower() in _SPLIT_NAMES and not only_splits:
            return depth
        deeper = any(len(path) > depth + 2 for path in folders)
        if len(below) == 1 and not only_splits and not deeper:
            return depth
        depth += 1


def _is_split_layout(folders: list[list[str]], depth: int) -> bool:
    tops = {path[depth] for path in folders if len(path) > depth}
    splits = {top for top in tops if top.lower() in _SPLIT_NAMES}
    if not splits:
        return False
    if splits == tops:
        return True
    if any(path[depth] in splits for path in folders if len(path) > depth + 1):
        other = min(tops - splits)
        raise BadDataset(
            f"The folder {other!r} stands beside {min(splits)!r}: folders are either splits or "
            f"classes; move or remove it. {EXPECTED}"
        )
    return False  # a class that happens to be called train


def class_name(text: str) -> str:
    """The name of a folder, or the value of a field, as a label. Raises `BadDataset`."""
    label = unicodedata.normalize("NFC", text)
    visible = label.translate(_JOINERS)
    if len(label) > MAX_LABEL or not visible.isprintable() or not visible.strip():
        raise BadDataset(
            f"{text[:60]!r} cannot be a class name: 1 to {MAX_LABEL} printable characters are "
            "needed; rename the folder, or mend the field or the value."
        )
    return label


def split_name(text: str) -> str | None:
    """`train`, `val` or `test` by any of its spellings."""
    return _SPLIT_NAMES.get(text.lower())
