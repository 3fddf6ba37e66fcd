"""Measuring: the pass over a dataset's images on a Ray cluster; a `Scanner` like `data.scan`.

The machines must see the source under the same path, or read it from a URL.
"""

from imgcls.data.entries import Entries, Kind
from imgcls.data.journal import Journal
from imgcls.data.measure import Measures, join, measure
from imgcls.data.scan import Progress, gaps, opened, slices
from imgcls.data.url_reader import open_reader
from imgcls.data.urls import Place
from imgcls.scale.chunks import mapped
from imgcls.scale.cluster import connect
from imgcls.settings import get_settings

CHUNK_FILES, CHUNK_BYTES = 1_024, 32 * 2**20
"""Work of about a second: what is sent and kept of a chunk costs milliseconds."""


class RayScanner:
    """Connects when it is called: data that is in the store already needs no cluster."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address

    def __call__(
        self,
        kind: Kind,
        path: Place,
        entries: Entries,
        *,
        progress: Progress | None = None,
        journal: Journal | None = None,
    ) -> Measures:
        """As `data.scan.scan`, to the last number. Raises what `connect` and `mapped` do."""
        pixels = get_settings().max_image_pixels
        with opened(journal, entries) as kept:
            found = dict(kept.found)
            done = sum(map(len, found.values()))
            runs = slices(entries, gaps(len(entries), found), CHUNK_FILES, CHUNK_BYTES)
            chunks = [entries.take(run) for run in runs]
            with connect(self._address):
                parts = mapped(_measure, chunks, kind=kind, path=path, max_pixels=pixels)
                for run, part in zip(runs, parts, strict=True):
                    found[run.start] = part
                    kept.add(run.start, part)
                    done += len(part)
                    if progress is not None:
                        progress(done, len(entries))
        return join([found[start] for start in sorted(found)])


def _measure(entries: Entries, kind: Kind, path: Place, max_pixels: int) -> Measures:
    with open_reader(kind, path) as reader:
        return measure(reader, entries, max_pixels)
