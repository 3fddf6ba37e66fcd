"""Messages between a scan and its child processes: a JSON head and a block of numbers.

Plain data in both directions, so a child can hand back nothing but numbers and texts.
"""

import json
from math import prod
from typing import Any, BinaryIO

import numpy as np

from imgcls.data.entries import Entries, make_entries
from imgcls.data.measure import HASH_BYTES, NUMBERS, Measures
from imgcls.data.pixelwise import CELLS

Message = tuple[dict[str, Any], bytes]
_LENGTH = 8


def send(file: BinaryIO, head: dict[str, Any], block: bytes = b"") -> None:
    """Write one message and flush it."""
    file.write(pack(head, block))
    file.flush()


def pack(head: dict[str, Any], block: bytes = b"") -> bytes:
    """One message: two lengths, the head, the block."""
    text = json.dumps(head).encode()
    return len(text).to_bytes(_LENGTH, "big") + len(block).to_bytes(_LENGTH, "big") + text + block


def receive(file: BinaryIO) -> Message | None:
    """The next message. None at the end of the file, or where it breaks off."""
    sizes = file.read(2 * _LENGTH)
    if len(sizes) < 2 * _LENGTH:
        return None
    length, rest = (int.from_bytes(sizes[at : at + _LENGTH], "big") for at in (0, _LENGTH))
    text, block = file.read(length), file.read(rest)
    if len(text) < length or len(block) < rest:
        return None
    return json.loads(text), block


def send_entries(file: BinaryIO, entries: Entries) -> None:
    """A chunk to be measured; names stay behind, since measuring needs none."""
    columns = (entries.offset, entries.packed, entries.size, entries.method, entries.crc)
    locations = entries.locations
    places = None if locations is None else [place.decode("latin-1") for place in locations]
    send(file, {"locations": places}, np.stack(columns, axis=1).tobytes())


def to_entries(head: dict[str, Any], block: bytes) -> Entries:
    """The chunk of `send_entries`, nameless."""
    locations = head["locations"]
    table = np.frombuffer(block, np.int64).reshape(-1, 5)
    places = locations and [place.encode("latin-1") for place in locations]
    return make_entries([""] * len(table), table, places)


def of_measures(found: Measures) -> Message:
    """What was found in a chunk."""
    columns = (found.numbers, found.blur, found.cells, found.content_hash, found.format)
    head = {"rows": len(found), "error": list(found.error.items())}
    return head, b"".join(column.tobytes() for column in columns)


def to_measures(head: dict[str, Any], block: bytes) -> Measures:
    """The chunk of `of_measures`."""
    rows, at = head["rows"], 0

    def column(kind: type, *shape: int) -> Any:
        nonlocal at
        values = np.frombuffer(block, kind, rows * prod(shape), at).reshape(rows, *shape)
        at += values.nbytes
        return values

    return Measures(
        column(np.int64, len(NUMBERS)),
        column(np.float32),
        column(np.uint8, CELLS),
        column(np.uint8, HASH_BYTES),
        column(np.uint8),
        dict(head["error"]),
    )
