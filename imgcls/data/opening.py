"""open_dataset: from whatever a person names, a path or a tag, to a `Dataset`."""

import contextlib
import os
from pathlib import Path

from imgcls.data.dataset import Dataset
from imgcls.data.scan import Progress
from imgcls.data.store import DatasetStore, open_entry
from imgcls.data.summary import ARCHIVE_SUFFIXES


def open_dataset(
    source: str | Path,
    *,
    name: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Open a folder, a .zip, a .tar (.gz, .bz2, .xz), or a stored dataset by its tag.

    A path is indexed once and remembered in the store; an unchanged one opens at once. A string
    that exists as a path is a path: a server that takes tags from outside calls
    `DatasetStore.open`. `name` defaults to that of the file or folder. `seed` decides the splits
    that the folders do not state.

    Raises `BadDataset`, `BadArchive`, `DatasetNotFound`.
    """
    store = DatasetStore()
    text = str(source)
    path_like = isinstance(source, Path) or os.sep in text or text.endswith(ARCHIVE_SUFFIXES)
    if not path_like and not os.path.exists(source):
        return store.open(text, seed=seed)
    folder, entry = store.add_entry(Path(source), name, False, seed, progress)
    with contextlib.suppress(FileNotFoundError):
        return open_entry(folder, entry, seed)
    return store.open(entry.summary.tag, seed=seed)  # replaced meanwhile, by the same content
