"""Labelling: where the labels or targets of a dataset come from, when folders do not say them.

Kept with a stored dataset and part of its version, and named in the lineage of its models.
"""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from imgcls.data.where import Where
from imgcls.errors import BadArgument


class Labelling(BaseModel):
    """By default, folders are the labels.

    Fields come from the pattern or the table. Those called `label`, `target`, `split`, `weight` and
    `group` mean what they say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str | None = None
    """Of file names, such as `{id}_{gender}_{country}_{rate}_{votes}`."""
    table: str | None = None
    """BLAKE2b-160, hex, of the table that was given with the images."""
    target: str | None = None
    """The field that is a number to be predicted: the dataset is one for regression."""
    where: str | None = None
    """The filter that images had to pass, such as `votes>=5`."""
    group: str | None = None
    """The field whose values divide the images into groups, with a model for each."""
    fix: str | None = None
    """BLAKE2b-160, hex, of the fixes that were applied since (`imgcls.data.fix_list`)."""

    @property
    def task(self) -> Literal["classification", "regression"]:
        return "classification" if self.target is None else "regression"

    def resolved(self, fields: Sequence[str]) -> Self:
        """The same, with what fields of these names say by themselves.

        A field called `target` is the target and one called `group` the group where no other is
        named. Raises `BadArgument` for fields that are not there and for a contradiction.
        """
        changes = {
            name: name
            for name in ("target", "group")
            if getattr(self, name) is None and name in fields
        }
        if "label" in fields:
            if self.target is not None:
                raise BadArgument(
                    "An image has either a label or a target; leave out the target, or call the "
                    "field `label` something else."
                )
            changes.pop("target", None)
        found = self.model_copy(update=changes)
        needed = [name for name in (found.target, found.group) if name is not None]
        if found.where is not None:
            needed += Where(found.where).fields
        missing = next((name for name in needed if name not in fields), None)
        if missing is not None:
            there = f"there are: {', '.join(fields)}" if fields else "give a pattern or a table"
            raise BadArgument(f"There is no field {missing[:60]!r}; {there[:600]}.")
        return found


FOLDERS = Labelling()
"""Folders say everything."""
