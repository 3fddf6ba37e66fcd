"""Findings that took a training to make, kept beside the index of the dataset that they are of."""

from pydantic import TypeAdapter, ValidationError

from imgcls.data.store import DatasetStore
from imgcls.errors import DatasetNotFound
from imgcls.files import write_atomic
from imgcls.findings.types import Finding

FILE = "mislabelled.json"
_FINDINGS = TypeAdapter(list[Finding])


def keep(tag: str, findings: list[Finding]) -> None:
    """Replace those of a stored dataset. Raises `DatasetNotFound` where it is gone."""
    folder = DatasetStore().folder(tag)
    if not folder.is_dir():
        raise DatasetNotFound(f"The dataset {tag} is gone; add it again.")
    write_atomic(folder / FILE, _FINDINGS.dump_json(findings))


def kept(tag: str) -> list[Finding]:
    """None where nobody has looked for them, or where they cannot be read."""
    try:
        return _FINDINGS.validate_json((DatasetStore().folder(tag) / FILE).read_bytes())
    except (OSError, ValidationError):
        return []
