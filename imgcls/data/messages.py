"""Messages between a scan and its child processes: a JSON head and a block of int64.

Plain data in both directions, so a child can hand back nothing but numbers and texts.
"""

import json
from typing import Any, BinaryIO

import numpy as np

from imgcls.data.entries import Entries, Ints, make_entries
from imgcls.data.measure import NUMBERS, Measures

_LENGTH = 8


def send(file: BinaryIO, head: dict[str, Any], numbers: Ints | None = None) -> None:
    """Write one message and flush it."""
    text = json.dumps(head).encode()
    block = b"" if numbers is None else np.ascontiguousarray(numbers).tobytes()
    sizes = len(text).to_bytes(_LENGTH, "big") + len(block).to_bytes(_LENGTH, "big")
    file.write(sizes + text + block)
    file.flush()


def receive(file: BinaryIO) -> tuple[dict[str, Any], Ints] | None:
    """The next message: its head, and its numbers in one row. None at the end of the file."""
    sizes = file.read(2 * _LENGTH)
    if len(sizes) < 2 * _LENGTH:
        return None
    length = int.from_bytes(sizes[:_LENGTH], "big")
    text, block = file.read(length), file.read(int.from_bytes(sizes[_LENGTH:], "big"))
    if len(text) < length or len(block) < int.from_bytes(sizes[_LENGTH:], "big"):
        return None
    head: dict[str, Any] = json.loads(text)
    return head, np.frombuffer(block, np.int64)


def send_entries(file: BinaryIO, entries: Entries) -> None:
    """A chunk to be measured; names stay behind, since measuring needs none."""
    columns = (entries.offset, entries.packed, entries.size, entries.method, entries.crc)
    locations = entries.locations
    places = None if locations is None else [place.decode("latin-1") for place in locations]
    send(file, {"locations": places}, np.stack(columns, axis=1))


def to_entries(head: dict[str, Any], numbers: Ints) -> Entries:
    """The chunk of `send_entries`, nameless."""
    locations = head["locations"]
    table = numbers.reshape(-1, 5)
    places = locations and [place.encode("latin-1") for place in locations]
    return make_entries([""] * len(table), table, places)


def send_measures(file: BinaryIO, found: Measures) -> None:
    """What was found in a chunk."""
    head = {"content_hash": found.content_hash, "format": found.format, "error": found.error}
    send(file, head, found.numbers)


def to_measures(head: dict[str, Any], numbers: Ints) -> Measures:
    """The answer of `send_measures`."""
    table = numbers.reshape(-1, len(NUMBERS))
    return Measures(table, head["content_hash"], head["format"], head["error"])
