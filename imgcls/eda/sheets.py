"""Sheets: contact sheets of stored datasets, made once and kept beside the index.

They go when the dataset is removed, and when it is added again.
"""

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING

from imgcls.eda.samples import choose, sheet
from imgcls.files import locked, write_atomic

if TYPE_CHECKING:
    from imgcls.data import DatasetStore

_KEPT = 32
"""Sheets of one dataset, the newest."""
_COLUMNS = 10
_FORM = 1
"""Of the sheets: a change of their looks makes new ones."""


def stored_sheet(
    store: "DatasetStore",
    tag: str,
    *,
    label: str | None = None,
    split: str | None = None,
    count: int = 8,
    seed: int = 0,
) -> bytes:
    """The contact sheet of a stored dataset as PNG; the options are those of `choose`.

    Raises `DatasetNotFound`, `BadDataset`, `BadArgument`.
    """
    tag = store.get(tag).tag
    options = json.dumps([_FORM, label, split, count, seed])
    name = f"sheet-{hashlib.blake2b(options.encode(), digest_size=12).hexdigest()}.png"
    path = store.folder(tag) / name
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    with store.open(tag, seed=seed) as dataset:
        strips = choose(dataset, label=label, split=split, count=count, seed=seed)
        png = sheet(dataset, strips, min(count, _COLUMNS))
    # A sheet that cannot be kept (a full disk, say) is made again; a dataset that was removed
    # meanwhile leaves none.
    with contextlib.suppress(OSError), locked(store.root / ".lock"):
        if path.parent.is_dir():
            write_atomic(path, png)
            kept = sorted(path.parent.glob("sheet-*.png"), key=lambda file: file.stat().st_mtime_ns)
            for old in kept[:-_KEPT]:
                old.unlink()
    return png
