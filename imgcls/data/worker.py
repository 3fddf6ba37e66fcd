"""Child process of `scan.py`: measures the chunks that come in on stdin, answers on stdout.

The first message names the source, every other is a chunk. The end of stdin ends the process.
"""

import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from imgcls.data import messages
from imgcls.data.measure import Bench, measure
from imgcls.data.reader import Reader
from imgcls.errors import ImgclsError


def main() -> None:
    # Only messages may reach the pipe: whatever a library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    chunks = sys.stdin.buffer
    if (first := messages.receive(chunks)) is None:
        return
    try:
        _answer(chunks, answers, first[0])
    except ImgclsError as err:
        messages.send(answers, err.to_dict())


def _answer(chunks: BinaryIO, answers: BinaryIO, source: dict[str, Any]) -> None:
    path, bench = Path(os.fsdecode(source["path"].encode("latin-1"))), Bench()
    with Reader(source["kind"], path) as reader:
        while (message := messages.receive(chunks)) is not None:
            entries = messages.to_entries(*message)
            found = measure(reader, entries, source["max_pixels"], bench)
            messages.send(answers, *messages.of_measures(found))


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # the parent was killed: nobody waits for an answer
        os._exit(1)
