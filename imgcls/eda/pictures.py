"""Pictures: small pictures of a dataset's images, as HTML that needs no other file."""

import io
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from imgcls.eda.samples import Strip, thumbnails
from imgcls.page import data_url, text

if TYPE_CHECKING:
    from imgcls.data import Dataset

_SIDE = 128
"""Longest side, in pixels."""


class Pictures:
    """Those of the given paths in the dataset, each with its label, split and path below."""

    def __init__(self, dataset: "Dataset", paths: Iterable[str]) -> None:
        wanted = pa.array(dict.fromkeys(paths), pa.string())
        found = pc.index_in(wanted, value_set=dataset.index["path"])
        rows = found.drop_null().to_pylist()
        label = "target" if dataset.task == "regression" else "label"
        told = dataset.index.take(pa.array(rows, pa.int64())).select(["path", label, "split"])
        self._figures = {
            image["path"]: _figure(source, str(image[label]), image["split"], image["path"])
            for image, source in zip(told.to_pylist(), _sources(dataset, rows), strict=True)
        }

    def figure(self, path: str) -> str:
        """HTML; of a path that is not in the dataset its name alone."""
        return self._figures.get(path) or _figure(None, "", "", path)


def strips(dataset: "Dataset", chosen: Sequence[Strip]) -> str:
    """The strips below each other, with their names."""
    sources = _sources(dataset, [row for strip in chosen for row in strip.rows])
    return "".join(
        f"<div class=sample><div class=told><b>{text(strip.name)}</b> "
        f"<small>{strip.total:,} images</small></div><div class=strip>"
        + "".join(f'<img alt="" src="{next(sources)}">' for _ in strip.rows)
        + "</div></div>"
        for strip in chosen
    )


def _sources(dataset: "Dataset", rows: Sequence[int]) -> Iterator[str]:
    for picture in thumbnails(dataset, rows, _SIDE):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        yield data_url(buffer.getvalue(), "jpeg")


def _figure(source: str | None, label: str, split: str, path: str) -> str:
    picture = f'<img alt="" src="{source}">' if source else "<div class=none>no picture</div>"
    folder, _, name = path.rpartition("/")
    return (
        f'<figure title="{escape(path)}">{picture}<figcaption><b>{text(label)}</b> {text(split)}'
        f"<small class=path>{text(folder)}/</small><small class=path>{text(name)}</small>"
        "</figcaption></figure>"
    )


STYLE = """
.sample { border-top: 1px solid #e7eaef; padding: .7rem 0; }
.told { margin-bottom: .4rem; overflow-wrap: anywhere; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, 7.2rem); gap: .6rem; }
.strip img, .none { width: 100%; aspect-ratio: 1; object-fit: contain; background: #f3f4f7;
  border-radius: 4px; }
.strip figure { min-width: 0; }
.none { display: grid; place-items: center; color: #525b6b; font-size: .8rem; }
.path { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
"""
