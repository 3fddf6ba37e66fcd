"""open_dataset: from whatever a person names, a path or a tag, to a `Dataset`."""

import contextlib
import os
from pathlib import Path

from imgcls.data.dataset import Dataset
from imgcls.data.labelling import FOLDERS, Labelling
from imgcls.data.scan import Progress, Scanner, scan
from imgcls.data.store import DatasetStore, open_entry
from imgcls.data.summary import ARCHIVE_SUFFIXES
from imgcls.data.tables import SUFFIXES
from imgcls.data.urls import Place, is_url, place
from imgcls.errors import BadArgument, BadDataset, DatasetNotFound


def open_dataset(
    source: str | Place,
    *,
    name: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    labelling: Labelling = FOLDERS,
    table: str | Path | None = None,
    group: str | None = None,
    scanner: Scanner = scan,
) -> Dataset:
    """Open a folder, a .zip, a .tar (.gz, .bz2, .xz), or a stored dataset by its tag.

    A folder or an archive may be a URL that fsspec knows, such as `s3://bucket/photos`. A .csv or
    .parquet is a table of images in its own folder.

    A path is indexed once and remembered in the store; an unchanged one opens at once. A name alone
    that the store knows is the stored dataset (`is_stored`), also where a folder is called so; what
    exists as a path otherwise is a path: a server that takes tags from outside calls
    `DatasetStore.open`. `name` defaults to that of the file or folder. `seed` decides the splits
    that the folders do not state. `labelling` and the file `table` say where labels or targets
    come from, where folders do not; a stored dataset knows. `group` opens one of its groups alone.
    `scanner` measures the images of what is not in the store.

    Raises `BadDataset`, `BadArchive`, `DatasetNotFound`, and `BadArgument` for a labelling or group
    that does not fit.
    """
    store = DatasetStore()
    text = str(source)
    bare = name is None and is_stored(source)
    if bare or not (_is_path_like(source) or os.path.exists(text)):
        try:
            kept = store.get(text).labelling.model_dump().items()
        except DatasetNotFound as err:
            told = f"There is no file or folder {text[:100]!r}. {err.message}"
            raise DatasetNotFound(told, detail=err.detail) from None
        if table is not None or not labelling.model_dump(exclude_none=True).items() <= kept:
            raise BadArgument(
                f"The stored dataset {text[:100]!r} keeps the pattern, table and filter that it "
                "was added with; to change them, give the folder or archive again, as a path such "
                f"as {os.path.join(os.curdir, text[:100])}."
            )
        return store.open(text, seed=seed, group=group)
    if is_url(text) and text.lower().endswith(SUFFIXES):
        raise BadArgument(
            "A table is read from this machine: copy it here, and give the URL of the folder with "
            "the images and the table by --table."
        )
    if table is None and text.lower().endswith(SUFFIXES):
        table, name = text, name or Path(text).stem
        source = Path(os.path.abspath(text)).parent
    rows = None if table is None else Path(table)
    added = store.add_entry(place(source), name, False, seed, progress, labelling, rows, scanner)
    with contextlib.suppress(FileNotFoundError):
        return open_entry(added.folder, added.entry, seed, group, added.index)
    # Replaced meanwhile, by the same content.
    return store.open(added.entry.summary.tag, seed=seed, group=group)


def is_stored(source: str | Place) -> bool:
    """Whether this is a name or tag in the store, and neither has a folder in it nor a suffix."""
    if _is_path_like(source):
        return False
    with contextlib.suppress(DatasetNotFound, BadDataset):
        DatasetStore().get(str(source))
        return True
    return False


def _is_path_like(source: str | Place) -> bool:
    text = str(source)
    suffixes = (*ARCHIVE_SUFFIXES, *SUFFIXES)
    return isinstance(source, Path) or os.sep in text or text.lower().endswith(suffixes)
