"""Copies: one picture in several files, and whether that makes a dataset lie.

A copy in another split lets a model be tested on what it was trained on; a copy under another
label teaches it both.
"""

from typing import TYPE_CHECKING

import numpy as np

from imgcls.findings.types import LISTED, Finding, Kind

if TYPE_CHECKING:
    from imgcls.data import Dataset


def find_copies(dataset: "Dataset") -> list[Finding]:
    """Groups of readable images with the very same bytes."""
    index = dataset.index.filter(dataset.index["error"].is_null())
    content = index["content_hash"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(content, kind="stable")
    paths = index["path"].to_pylist()
    labels = index["label" if dataset.task == "classification" else "target"].to_pylist()
    splits = index["split"].to_pylist()
    found = []
    for rows in np.split(order, np.flatnonzero(np.diff(content[order])) + 1):
        if len(rows) < 2:
            continue
        members = rows.tolist()
        under = sorted({str(labels[row]) for row in members})
        inside = sorted({splits[row] for row in members})
        kind: Kind = "exact_duplicate"
        message = f"{len(members)} files hold the same bytes."
        if len(under) > 1:
            kind, message = "label_conflict", f"One image is labelled {' and '.join(under[:5])}."
        elif len(inside) > 1:
            kind, message = "leak", f"One image lies in {' and '.join(inside)}."
        listed = [paths[row] for row in members[:LISTED]]
        found.append(Finding(kind=kind, paths=listed, confidence=1, message=message))
    return found
