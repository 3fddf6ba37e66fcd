"""Datasets: an archive or a folder of labelled images, and the index of one pass over it.

    entries -> zips, tars, folders, urls -> reader, url_reader -> pixelwise, measure
            -> journal, children (worker) -> scan -> layout, splits -> index -> source, dataset
            -> shelf, adding -> store -> opening, diff
    pattern, where -> labelling -> fields (with layout); tables, imagefolder

`open_dataset` is the way in. Names are loaded when first used, so that the child processes of a
scan import what measuring needs and nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgcls.data.dataset import Dataset
    from imgcls.data.diff import DatasetDiff
    from imgcls.data.labelling import Labelling
    from imgcls.data.opening import open_dataset
    from imgcls.data.store import DatasetStore
    from imgcls.data.summary import DatasetSummary

__all__ = ["Dataset", "DatasetDiff", "DatasetStore", "DatasetSummary", "Labelling", "open_dataset"]

_MODULES = {
    "Dataset": "imgcls.data.dataset",
    "DatasetDiff": "imgcls.data.diff",
    "DatasetStore": "imgcls.data.store",
    "DatasetSummary": "imgcls.data.summary",
    "Labelling": "imgcls.data.labelling",
    "open_dataset": "imgcls.data.opening",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
