"""The offline limit: decode, resize and run the model in a bare loop, with no server around it.

    python -m benchmarks.serve.offline --model FOLDER --photos FOLDER --way pipeline --seconds 10

Three ways to use the cores, since none is the fastest on every machine and network:

- `serial`: one picture after the other, the session on all cores;
- `threads`: one thread a core, each decodes a picture and runs it in a session of one thread;
- `pipeline`: threads decode the next batch while the session, on all cores, runs this one.

Prints a line of JSON: how many pictures, in how many seconds. The decoder is imgcls's own.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imgcls import images
from imgcls.engine import Engine
from imgcls.settings import usable_cores

CORES = usable_cores()
BATCH = 8


def serial(engine: Engine, files: list[bytes], seconds: float) -> int:
    pictures = itertools.cycle(files)
    return sum(_predict(engine, next(pictures)) for _ in _until(seconds))


def threads(engine: Engine, files: list[bytes], seconds: float) -> int:
    def work(first: int) -> int:
        return serial(engine, files[first:] + files[:first], seconds)

    with ThreadPoolExecutor(CORES) as pool:
        return sum(pool.map(work, range(CORES)))


def pipeline(engine: Engine, files: list[bytes], seconds: float) -> int:
    pictures = itertools.cycle(files)
    done = 0
    with ThreadPoolExecutor(CORES) as pool:

        def ahead() -> list["Future[images.Pixels]"]:
            return [pool.submit(_load, engine, next(pictures)) for _ in range(BATCH)]

        following = ahead()
        for _ in _until(seconds):
            batch, following = [future.result() for future in following], ahead()
            done += len(engine.answers(np.stack(batch)))
    return done


@dataclass(frozen=True, slots=True)
class Way:
    run: Callable[[Engine, list[bytes], float], int]
    """Returns how many pictures it got done in so many seconds."""
    session_threads: int


WAYS = {
    "serial": Way(serial, CORES),
    "threads": Way(threads, 1),
    "pipeline": Way(pipeline, CORES),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures/s without any server.")
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEGs")
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--warm-up", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    files = [path.read_bytes() for path in sorted(arguments.photos.glob("*.jpg"))]
    way = WAYS[arguments.way]
    engine = Engine.load(arguments.model, threads=way.session_threads)
    way.run(engine, files, arguments.warm_up)
    begun = time.perf_counter()
    done = way.run(engine, files, arguments.seconds)
    print(json.dumps({"requests": done, "seconds": time.perf_counter() - begun}))


def _until(seconds: float) -> Iterator[None]:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        yield


def _predict(engine: Engine, file: bytes) -> int:
    return len(engine.answers(_load(engine, file)[None]))


def _load(engine: Engine, file: bytes) -> images.Pixels:
    return images.load(file, engine.card.preprocessing)


if __name__ == "__main__":
    main()
