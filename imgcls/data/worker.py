"""Child process of `scan.py`: measures the chunks that come in on stdin, answers on stdout.

The first message names the source, every other is a chunk. The end of stdin ends the process.
"""

import os
import sys
from pathlib import Path

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
    source, bench = first[0], Bench()
    try:
        with Reader(source["kind"], Path(os.fsdecode(source["path"].encode("latin-1")))) as reader:
            while (message := messages.receive(chunks)) is not None:
                entries = messages.to_entries(*message)
                found = measure(reader, entries, source["max_pixels"], bench)
                messages.send(answers, *messages.of_measures(found))
    except ImgclsError as err:
        messages.send(answers, err.to_dict())
    except BrokenPipeError:  # the parent was killed: nobody waits for an answer
        os._exit(1)


if __name__ == "__main__":
    main()
