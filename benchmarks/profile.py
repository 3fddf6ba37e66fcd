"""How much quicker `imgcls eda` sees through a dataset than a plain loop with Pillow and NumPy.

    python -m benchmarks.profile pets32.zip
    python -m benchmarks.profile pets32.zip --images 10000 30000 120000 --at-least 10

A zip of that many images is made from those of the given one under new names, half of them encoded
anew so that their hashes differ; with `--distinct`, all of them: imgcls decodes files of the same
bytes once. The loop opens one after another with Pillow, in one process, and finds hash, sides, and
the sums of each channel and of their squares. imgcls finds those and all else that its index and
its profile hold, writes the index, and opens it. Each runs in a process of its own, with everything
imported and warm: imgcls five times, the loop before and after that. Fails where a figure of an
image differs, where one of the profile differs by more than 1e-6, and beyond the limits that are
asked for.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 1e-6
_STEP = 37
"""From one image to the next, so that few images have all classes and splits too."""
RUNS = 5
"""Of imgcls, of which the median counts: the loop, of whose two runs it is the mean, takes long
enough to even out what else a machine does, a few seconds do not."""
WARM = 200
"""Images of the dataset that is read before the clock starts."""


def main() -> None:
    parser = argparse.ArgumentParser(description="imgcls's profile beside the obvious loop.")
    parser.add_argument("data", type=Path, help="a zip of images, such as pets32.zip")
    parser.add_argument("--images", type=int, nargs="+", default=[120_000])
    parser.add_argument("--at-least", type=float, default=0.0, help="ratio of the times")
    parser.add_argument("--at-most-mb", type=float, default=float("inf"), help="peak memory")
    parser.add_argument("--distinct", action="store_true", help="no two files of the same bytes")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="profile-") as work:
        make(arguments.data, Path(work, "warm.zip"), WARM)
        for images in arguments.images:
            make(arguments.data, Path(work, "images.zip"), images, arguments.distinct)
            rows.append(_race(Path(work), images))
            print(
                "{images:>9,} images   loop {loop_s:6.1f} s   imgcls {imgcls_s:6.2f} s "
                "({imgcls_least_s:.2f} to {imgcls_most_s:.2f})   "
                "{ratio:5.1f} x   processor {loop_cpu_s:6.1f} and {imgcls_cpu_s:5.1f} s   "
                "peak {peak_mb:4.0f} MB   largest difference {difference:.1e}".format(**rows[-1]),
                flush=True,
            )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"profile-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps({"cores": os.cpu_count(), "runs": rows}, indent=2))
    last = rows[-1]
    if last["difference"] > TOLERANCE:
        raise SystemExit(f"A figure differs by {last['difference']:.1e}.")
    if last["ratio"] < arguments.at_least:
        raise SystemExit(f"{last['ratio']:.1f} times as fast, below {arguments.at_least:g}.")
    if last["peak_mb"] > arguments.at_most_mb:
        raise SystemExit(f"{last['peak_mb']:.0f} MB, above {arguments.at_most_mb:g}.")


def make(source: Path, target: Path, images: int, distinct: bool = False) -> None:
    """A zip of `images` files from those of another, in turn; every other one encoded anew, or with
    `distinct` each of them."""
    from PIL import Image

    with zipfile.ZipFile(source) as given, zipfile.ZipFile(target, "w") as made:
        names = [name for name in given.namelist() if name.endswith(".jpg")]
        files = [given.read(name) for name in names]
        for number in range(images):
            at = number * _STEP % len(names)
            name, data = names[at], files[at]
            if number % 2 or distinct:
                buffer = io.BytesIO()
                quality = 70 + number // len(names) % 25
                Image.open(io.BytesIO(data)).save(buffer, "JPEG", quality=quality)
                data = buffer.getvalue()
            folder, _, file = name.rpartition("/")
            made.writestr(f"{folder}/{number:07d}-{file}", data)


def _race(work: Path, images: int) -> dict[str, Any]:
    slow = _run("loop", work)
    runs = sorted((_run("imgcls", work) for _ in range(RUNS)), key=lambda run: run["wall"])
    quick, again = runs[RUNS // 2], _run("loop", work)
    loop_s, loop_cpu_s = ((slow[key] + again[key]) / 2 for key in ("wall", "cpu"))
    peak = _peak(work)
    return {
        "images": images,
        "loop_s": loop_s,
        "imgcls_s": quick["wall"],
        "imgcls_least_s": runs[0]["wall"],
        "imgcls_most_s": runs[-1]["wall"],
        "ratio": loop_s / quick["wall"],
        "loop_cpu_s": loop_cpu_s,
        "imgcls_cpu_s": quick["cpu"],
        "peak_mb": peak / 1e6,
        "difference": _difference(slow["found"], quick["found"]),
    }


def _run(who: str, work: Path) -> dict[str, Any]:
    """What a process of one side measured."""
    with _started(who, work) as process:
        if process.wait():
            raise SystemExit(f"{who} failed.")
    return json.loads((work / f"{who}.json").read_text())


def _peak(work: Path) -> float:
    """Most bytes that imgcls and its children have in memory: in a run of its own, since looking
    takes time of a core and holds up whoever is looked at."""
    peak, timed = 0.0, work / "imgcls.timed"
    timed.unlink()
    with _started("imgcls", work) as process:
        while process.poll() is None and not timed.exists():
            peak = max(peak, sum(map(_memory, _tree(process.pid))))
            time.sleep(0.05)
    return peak


def _started(who: str, work: Path) -> subprocess.Popen[bytes]:
    shutil.rmtree(work / "home", ignore_errors=True)
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.profile", who, str(work), str(work / f"{who}.json")],
        env=os.environ | {"BENTOML_HOME": str(work / "home"), "IMGCLS_HOME": ""},
    )


def _tree(process: int) -> Iterator[int]:
    yield process
    try:
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _tree(int(child))
    except OSError:
        return


def _memory(process: int) -> float:
    """Bytes that a process has in memory; of what several share, each has its part."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(1024.0 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _timed(work: Callable[[Path], Any], folder: Path) -> dict[str, Any]:
    work(folder / "warm.zip")
    before, started = os.times(), time.perf_counter()
    found = work(folder / "images.zip")
    wall, after = time.perf_counter() - started, os.times()
    return {"wall": wall, "cpu": sum(after[:4]) - sum(before[:4]), "found": found}


Found = tuple[dict[str, list[Any]], dict[str, list[float]]]
"""By path: hash, width, height, sums and sums of squares; and mean and deviation over all."""


def _loop(path: Path) -> Any:
    import numpy as np
    from PIL import Image

    rows = []
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            digest = hashlib.blake2b(data, digest_size=20).hexdigest()
            with Image.open(io.BytesIO(data)) as image:
                pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
            height, width, _ = pixels.shape
            sums, squares = pixels.sum(axis=(0, 1)), (pixels**2).sum(axis=(0, 1))
            rows.append((name, digest, width, height, sums, squares))
    total = sum(row[2] * row[3] for row in rows)
    mean = sum(row[4] for row in rows) / total / 255
    std = np.sqrt(sum(row[5] for row in rows) / total / 255**2 - mean**2)
    return rows, mean, std


def _imgcls(path: Path) -> Any:
    from imgcls.data import open_dataset
    from imgcls.eda import profile

    with open_dataset(path) as dataset:
        return dataset.index, profile(dataset)


def _plain_loop(found: Any) -> Found:
    rows, mean, std = found
    images = {
        row[0]: [row[1], row[2], row[3], [int(value) for part in row[4:] for value in part]]
        for row in rows
    }
    return images, {"mean": mean.tolist(), "std": std.tolist()}


def _plain_imgcls(found: Any) -> Found:
    index, report = found
    sums = [f"{kind}_{channel}" for kind in ("sum", "sumsq") for channel in "rgb"]
    columns = ["path", "content_hash", "width", "height", *sums]
    images = {
        path: [digest, width, height, values]
        for path, digest, width, height, *values in zip(
            *(index[name].to_pylist() for name in columns), strict=True
        )
    }
    overall = report.overall
    return images, {"mean": list(overall.mean_rgb), "std": list(overall.std_rgb)}


def _difference(one: Found, other: Found) -> float:
    """Of the figures over all images; those of each image must be the same."""
    if one[0] != other[0]:
        path = next(path for path in one[0] | other[0] if one[0].get(path) != other[0].get(path))
        raise SystemExit(f"{path}: {one[0].get(path)} and {other[0].get(path)}.")
    return max(
        abs(a - b)
        for name, values in one[1].items()
        for a, b in zip(values, other[1][name], strict=True)
    )


def _side(who: str, work: Path, result: Path) -> None:
    """One side, in its own process."""
    measured = _timed({"loop": _loop, "imgcls": _imgcls}[who], work)
    plain = {"loop": _plain_loop, "imgcls": _plain_imgcls}[who]
    result.with_suffix(".timed").touch()  # memory is watched until here
    result.write_text(json.dumps(measured | {"found": plain(measured["found"])}))


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in ("loop", "imgcls"):
        _side(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
