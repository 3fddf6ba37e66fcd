"""Measuring: the pass over a dataset's images on a Ray cluster; a `Scanner` like `data.scan`.

The machines must see the source under the same path, or read it from a URL.
"""

from imgcls.data.entries import Entries, Kind
from imgcls.data.journal import Journal, journal_key
from imgcls.data.measure import Measures, join, measure
from imgcls.data.scan import Progress, opened, slices
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
        runs = slices(entries, CHUNK_FILES, CHUNK_BYTES)
        pixels = get_settings().max_image_pixels
        key = journal_key(entries, pixels, runs)
        with opened(journal, entries, key) as kept:
            found = dict(kept.found)
            done = sum(map(len, found.values()))
            todo = [number for number in range(len(runs)) if number not in found]
            chunks = [entries.take(runs[number]) for number in todo]
            with connect(self._address):
                parts = mapped(_measure, chunks, kind=kind, path=path, max_pixels=pixels)
                for number, part in zip(todo, parts, strict=True):
                    found[number] = part
                    kept.add(number, part)
                    done += len(part)
                    if progress is not None:
                        progress(done, len(entries))
        return join([found[number] for number in range(len(runs))])


def _measure(entries: Entries, kind: Kind, path: Place, max_pixels: int) -> Measures:
    with open_reader(kind, path) as reader:
        return measure(reader, entries, max_pixels)
