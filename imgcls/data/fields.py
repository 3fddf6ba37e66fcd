"""Fields: from file names and their fields to a layout with targets, filters and groups.

What no field says, folders do: labels where there is neither a label nor a target, splits
where there is no split.
"""

from collections.abc import Sequence

from imgcls.data.labelling import Labelling
from imgcls.data.layout import SPLITS, Layout, arrange, class_name, split_name
from imgcls.data.where import Where, number
from imgcls.errors import BadDataset

Record = dict[str, str]
LARGEST = 1e30
"""Of targets and weights: what float32 can hold, and squares of it float64."""
MAX_GROUPS = 50
MAX_GROUP = 40
"""Characters of a group's name, which becomes part of its model's."""


def arrange_fields(
    names: list[str], others: int, records: Sequence[Record | None], labelling: Labelling
) -> Layout:
    """Paths, labels or targets, splits, weights and groups of the named images.

    `records` are their fields, None for images that have none: those are left out, and so are
    those that `labelling.where` turns down. `labelling` is a resolved one. Raises `BadDataset`.
    """
    found = next((record for record in records if record is not None), None)
    if names and found is None:
        raise BadDataset(
            f"No image's name, without its extension, matches the pattern {labelling.pattern!r}; "
            f"{names[0][:200]!r} is one."
        )
    fields = found or {}
    unmatched = sum(record is None for record in records)
    if labelling.pattern is not None and unmatched > len(names) / 2:
        example = next(n for n, record in zip(names, records, strict=True) if record is None)
        raise BadDataset(
            f"{unmatched:,} of {len(names):,} images do not match the pattern "
            f"{labelling.pattern!r}, {example[:200]!r} is one."
        )
    by_field = labelling.target is not None or "label" in fields
    base = _flat(names) if by_field and names else arrange(names, others)
    where = Where(labelling.where) if labelling.where is not None else None
    chosen: list[int] = []
    kept: list[Record] = []
    for at, row in enumerate(base.rows):
        record = records[row]
        if record is not None and (where is None or where.holds(record, names[row])):
            chosen.append(at)
            kept.append(record)
    if not chosen:
        raise BadDataset(f"No image is left by the filter {labelling.where!r}; loosen it.")
    layout = base.take(chosen)
    columns = _Columns(kept, layout.paths)
    return Layout(
        layout.rows,
        layout.paths,
        [class_name(text) for text in columns.texts("label")]
        if "label" in fields
        else layout.labels,
        columns.splits() if "split" in fields else layout.given,
        len(names) - len(chosen),
        columns.numbers(labelling.target) if labelling.target is not None else None,
        columns.numbers("weight", least=0) if "weight" in fields else None,
        columns.groups(labelling.group) if labelling.group is not None else None,
    )


class _Columns:
    """The fields of the images that take part, checked."""

    def __init__(self, records: list[Record], paths: list[str]) -> None:
        self._records, self._paths = records, paths

    def texts(self, field: str) -> list[str]:
        return [record[field] for record in self._records]

    def numbers(self, field: str, least: float = -LARGEST) -> list[float]:
        found = []
        for text, path in zip(self.texts(field), self._paths, strict=True):
            value = number(text)
            if value is None or not least <= value <= LARGEST:
                raise BadDataset(
                    f"The {field} of {path[:200]!r} is {text[:60]!r}; a number is needed"
                    + (", not below 0." if least == 0 else ", written like 7.25.")
                )
            found.append(value)
        return found

    def splits(self) -> list[str | None]:
        given: list[str | None] = []
        for text, path in zip(self.texts("split"), self._paths, strict=True):
            split = split_name(text)
            if split is None and text:
                raise BadDataset(
                    f"The split of {path[:200]!r} is {text[:60]!r}; it must be one of "
                    f"{', '.join(SPLITS)}, or empty."
                )
            given.append(split)
        return _with_train(given)

    def groups(self, field: str) -> list[str]:
        values = self.texts(field)
        different = set(values)
        if len(different) > MAX_GROUPS:
            raise BadDataset(
                f"The field {field!r} has {len(different):,} values, and a group is made of each; "
                f"{MAX_GROUPS} are the most."
            )
        bad = [value for value in different if not 0 < len(value.strip()) <= MAX_GROUP]
        if bad or not all(value.isprintable() for value in different):
            raise BadDataset(
                f"The field {field!r} must name a group for every image, in 1 to {MAX_GROUP} "
                "printable characters."
            )
        return values


def _flat(names: list[str]) -> Layout:
    """Images wherever they lie, below split folders or not; folders that hold everything go."""
    folders = [name.split("/")[:-1] for name in (min(names), max(names))]
    depth = 0
    for one, other in zip(*folders, strict=False):
        if one != other or split_name(one):
            break
        depth += 1
    below = ["/".join(name.split("/")[depth:]) for name in names]
    tops = {name.partition("/")[0] if "/" in name else "" for name in below}
    given: list[str | None] = [None] * len(names)
    if all(split_name(top) for top in tops):
        given = _with_train([split_name(name.partition("/")[0]) for name in below])
    return Layout(list(range(len(names))), below, [""] * len(names), given, 0)


def _with_train(given: list[str | None]) -> list[str | None]:
    if given and all(split in ("val", "test") for split in given):
        raise BadDataset("All images are given to val or test; some must be left for train.")
    return given
