"""Stored data: what the routes of datasets do, away from the event loop.

Arrow is heavy and predictions never need it, so it is loaded by whoever calls these first.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.datastructures import UploadFile
from starlette.responses import Response

from imgcls.data.diff import DatasetDiff
from imgcls.data.fix_list import FixRow
from imgcls.data.labelling import Labelling
from imgcls.data.summary import DatasetSummary
from imgcls.eda import Profile
from imgcls.files import scratch
from imgcls.findings import Findings, Fixed
from imgcls.jobs import Jobs
from imgcls.schemas import RemoveResponse
from imgcls.settings import get_settings

if TYPE_CHECKING:
    from imgcls.data import DatasetStore

_LISTED_FINDINGS, _LISTED_FIXES = 1_000, 5_000
"""In one answer at most."""


def store_upload(
    archive: UploadFile, name: str, labelling: Labelling, table: UploadFile | None
) -> DatasetSummary:
    with scratch(get_settings().home, ".upload-") as folder:
        # The client's file name is never used: it could be any path. Messages begin with this one.
        path, rows = folder / "The uploaded file", folder / "The uploaded table"
        _keep(archive, path)
        if table is not None:
            _keep(table, rows)
        return stored().add(
            path, name=name, move=True, labelling=labelling, table=rows if table else None
        )


def _keep(upload: UploadFile, path: Path) -> None:
    upload.file.seek(0)
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file, 1024 * 1024)


def stored() -> "DatasetStore":
    from imgcls.data import DatasetStore

    return DatasetStore()


def profiled(tag: str, seed: int) -> Profile:
    from imgcls.eda import profile

    with stored().open(tag, seed=seed) as dataset:
        return profile(dataset)


def page(tag: str, seed: int) -> Response:
    from imgcls.eda import profile
    from imgcls.eda.html import page
    from imgcls.findings import find

    with stored().open(tag, seed=seed) as dataset:
        written = page(dataset, profile(dataset), find(dataset))
    return Response(written, media_type="text/html")


def samples(tag: str, label: str | None, split: str | None, count: int, seed: int) -> Response:
    from imgcls.eda.sheets import stored_sheet

    store = stored()
    png = stored_sheet(store, tag, label=label, split=split, count=count, seed=seed)
    return Response(png, media_type="image/png")


def findings(tag: str, least: float, seed: int) -> Findings:
    from imgcls.findings import find

    with stored().open(tag, seed=seed) as dataset:
        found = [one for one in find(dataset) if one.confidence >= least]
        total = Counter(one.kind for one in found)
        return Findings(dataset=dataset.tag, total=total, findings=found[:_LISTED_FINDINGS])


def fix(tag: str, rows: Sequence[FixRow] | None, apply: bool, least: float, seed: int) -> Fixed:
    from imgcls.findings import find
    from imgcls.findings.mending import to_fixes

    store = stored()
    made = None
    if rows is None:
        with store.open(tag, seed=seed) as dataset:
            tag, rows = dataset.tag, to_fixes(find(dataset), least)
    else:
        apply = True
    if apply:
        made = store.add_fixed(tag, rows, seed=seed)
    return Fixed(dataset=made, total=len(rows), fixes=list(rows[:_LISTED_FIXES]))


def diff(old: str, new: str, seed: int) -> DatasetDiff:
    from imgcls.data.diff import diff_versions

    return diff_versions(stored(), old, new, seed=seed)


def remove(jobs: Jobs, tag: str) -> RemoveResponse:
    store = stored()
    whole = store.get(tag).tag
    with jobs.without(whole):
        removed = store.remove(whole)
    return RemoveResponse(removed=[removed], left=[summary.tag for summary in store.list()])


def trainable(tag: str, seed: int, group: str | None) -> str:
    """The whole tag of a dataset that a model can be trained on."""
    with stored().open(tag, seed=seed, group=group) as dataset:
        dataset.check_trainable()
        return dataset.tag
