"""What the store writes about a dataset: the summary that lists show, and the entry around it.

Names and tags are made and recognised here too. Nothing here reads an image.
"""

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from imgcls.data.labelling import FOLDERS, Labelling

if TYPE_CHECKING:
    from imgcls.data.urls import Place

ENTRY_FILE = "dataset.json"
FIXES_FILE = "fix.csv"
MAX_NAME = 63
TAG = re.compile(r"([a-z0-9][a-z0-9._-]{0,62})(?::([0-9a-f]{12}|latest))?")
"""`name:version`, or `name` and `name:latest` for the newest."""
ARCHIVE_SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tbz2", ".txz", ".zip", ".tar")


class DatasetSummary(BaseModel):
    """What lists show of a dataset."""

    model_config = ConfigDict(frozen=True)

    tag: str
    """`name:version`; the version is the hash of the content."""
    labels: list[str]
    """Class names, sorted; none of a regression."""
    images: int
    """Readable ones."""
    unreadable: int
    """Files with the extension of an image that cannot be decoded."""
    ignored: int = 0
    """Files that are no images, images that have neither label nor target, and those that the
    filter leaves out."""
    splits: dict[str, int]
    """Readable images in `train`, `val` and `test`, with the seed given when it was added."""
    bytes: int
    """Of all image files together, as encoded."""
    created_at: AwareDatetime
    source: Literal["folder", "zip", "tar"]
    task: Literal["classification", "regression"] = "classification"
    labelling: Labelling = FOLDERS
    """Where labels or targets come from."""
    groups: list[str] = []
    """Of the field `labelling.group`, sorted."""


class Entry(BaseModel):
    """`dataset.json`."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    summary: DatasetSummary
    source: str
    """Absolute path or URL of what was added."""
    fingerprint: str
    """Of the source, when it was indexed."""
    index: str
    """File name of the index, in the entry's folder."""
    archive: str | None = None
    """File in the entry's folder that is read in place of the source."""
    moved: bool = False
    """The source itself was moved here: nothing is left to compare with."""
    asked: Labelling | None = None
    """The labelling that was asked for, where metadata in the data has said more."""
    also: dict[str, str] = {}
    """Other sources of the same content, and the fingerprint of each when it was indexed."""
    fixed: str | None = None
    """Tag of the version that this one was made of by the fixes in `FIXES_FILE`."""

    @property
    def labelling(self) -> Labelling:
        """What must be asked for to get this entry."""
        return self.summary.labelling if self.asked is None or self.fixed else self.asked

    @property
    def marks(self) -> dict[str, str]:
        """Fingerprints of all sources that are known to hold this content."""
        own = {} if self.moved else {self.source: self.fingerprint}
        return own | self.also


def load_entry(file: Path) -> Entry | None:
    """The entry in a `dataset.json`; None where there is none that can be understood."""
    try:
        return Entry.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def slug(text: str) -> str:
    """A dataset's name from any text: lower case, `[a-z0-9._-]`, at most 63 characters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"[^a-z0-9._-]+", "-", plain).strip("._-")[:MAX_NAME].rstrip("._-")
    return plain or "dataset"


def stem(path: "Place") -> str:
    """The name of a folder, or of an archive without its suffixes."""
    name = path.name
    if not path.is_dir():
        for suffix in ARCHIVE_SUFFIXES:
            if name.lower().endswith(suffix):
                return name[: -len(suffix)]
    return name
