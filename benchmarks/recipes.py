"""Every preset on real images: what it reaches, how long it trains, and how that grows.

    python -m benchmarks.recipes --pets pets32.zip --clothing clothing.zip
    python -m benchmarks.recipes --pets pets32.zip --clothing clothing.zip --only hog-svc cnn
    python -m benchmarks.recipes --pets pets32.zip --clothing clothing.zip --growth
    python -m benchmarks.recipes --write

Each case is what `imgcls train` does with the same settings, in a process and a store of its own,
so that nothing of one is left for the next. `--growth` fits each on some of the training images and
on twice as many, networks for one epoch, and fails where that takes more than 2.2 times the CPU
time, which other work on the machine changes least.
Results are added to benchmarks/recipes.json; docs/recipes.md is written from all of them,
between its two marks.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shlex
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import turned
from benchmarks.serve.report import markdown_table
from benchmarks.servers import ROOT

RESULTS = ROOT / "benchmarks" / "recipes.json"
DOCUMENT = ROOT / "docs" / "recipes.md"
BEGIN, END = "<!-- results: python -m benchmarks.recipes -->", "<!-- end of results -->"
AT_MOST = 2.2
"""Times as long, for twice the images."""
_RUNS = 20


@dataclass(frozen=True, slots=True)
class Case:
    preset: str
    data: str
    """`pets`; `cats-and-dogs`, the same without horses; `clothing`; `turned`, see that module."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """What makes it feasible on two cores, and without pretrained weights."""
    growth: int = 1200
    """Training images of the larger run of `--growth`."""


_UPRIGHT = {"augment.horizontal_flip": False, "augment.rotation": 0}
CASES = {
    case.preset: case
    for case in (
        Case("cnn", "pets"),
        Case("hog-svc", "pets", growth=2400),
        Case("hog-catboost", "pets", growth=2400),
        Case("hog-lightgbm", "pets", growth=2400),
        Case("sift-lightgbm", "pets", growth=2400),
        Case("real-or-fake", "cats-and-dogs", {"features.weights": "none"}),
        Case("linear-probe", "pets", {"image_size": 64, "features.weights": "none"}),
        Case(
            "efficientnet-b0",
            "clothing",
            {
                "image_size": 64,
                "network.weights": "none",
                "network.train": "whole",
                "network.body_lr": 1,
                "epochs": 12,
            },
        ),
        Case("resnet50v2", "clothing", {"image_size": 64, "epochs": 6}),
        Case(
            "cnn6",
            "clothing",
            {"image_size": 96, "network.dense": 512, "batch_size": 32, "schedule.decay": 0.8},
        ),
        Case(
            "score",
            "turned",
            {
                "image_size": 64,
                "network.name": "resnet18",
                "network.weights": "none",
                "optimizer.lr": 0.001,
                "batch_size": 32,
                "epochs": 12,
                "folds": None,
            }
            | _UPRIGHT,
        ),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train every preset on real images.")
    parser.add_argument("--pets", type=Path, help="a zip of cat, dog and horse, 32 x 32")
    parser.add_argument("--clothing", type=Path, help="a zip of photos of clothes")
    parser.add_argument("--only", nargs="+", default=list(CASES), metavar="PRESET", choices=CASES)
    parser.add_argument("--growth", action="store_true", help="twice the images, instead")
    parser.add_argument("--write", action="store_true", help="write the document, train nothing")
    arguments = parser.parse_args()
    if arguments.write:
        return _write()
    if arguments.pets is None or arguments.clothing is None:
        parser.error("give --pets and --clothing")
    zips = {"pets": arguments.pets.resolve(), "clothing": arguments.clothing.resolve()}
    for preset in arguments.only:
        case = CASES[preset]
        if arguments.growth:
            _keep(case, growth=[_apart(fitted, case, zips, n) for n in (1, 2)])
        else:
            _keep(case, **_apart(measured, case, zips))
        _write()
    if arguments.growth and (slow := [p for p in arguments.only if _ratio(_known()[p]) > AT_MOST]):
        raise SystemExit(f"Twice the images took over {AT_MOST} times as long: {', '.join(slow)}.")


def _apart(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What `work` gives, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="recipes-") as home:
        os.environ |= {"BENTOML_HOME": home, "IMGCLS_HOME": f"{home}/imgcls"}
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as process:
            found = process.submit(work, *arguments).result()
    print(f"{arguments[0].preset}: {found}"[:300], flush=True)
    return found


def measured(case: Case, zips: dict[str, Path]) -> dict[str, Any]:
    """Train one case, and measure what came of it."""
    from imgcls.recipes import load_recipe
    from imgcls.registry import Registry
    from training import train
    from training.export import Graph
    from training.loader import load_pixels

    with _open(case, zips) as dataset:
        card = train(dataset, load_recipe(case.preset, case.overrides), name="measured")
        folder = Registry().folder(card.tag)
        rows = dataset.rows("test")[:32]
        pixels = load_pixels(dataset, rows, card.preprocessing)
    graph = Graph(folder / "model.onnx")
    return {
        "task": card.task,
        "metrics": card.metrics.model_dump(mode="json"),
        "train_images": card.dataset.splits["train"],
        "side": card.preprocessing.width,
        "seconds": card.duration_seconds,
        "peak_mib": _peak_mib(),
        "graph_mib": (folder / "model.onnx").stat().st_size / 2**20,
        "parity": card.parity,
        "rate": {size: _rate(graph, pixels[:size]) for size in (1, 32)},
    }


def fitted(case: Case, zips: dict[str, Path], times: int) -> dict[str, Any]:
    """Fit one case on half its `growth` training images, or on all of them."""
    import numpy as np

    from imgcls.recipes import NetworkRecipe, load_recipe
    from training.events import ignore
    from training.fit import fit
    from training.seeding import reproducible

    recipe = load_recipe(case.preset, case.overrides)
    if isinstance(recipe, NetworkRecipe):
        recipe = recipe.model_copy(update={"epochs": 1})
    with _open(case, zips) as dataset, reproducible(0):
        drawn = np.random.default_rng(0).permutation(dataset.rows("train"))
        val, test = (dataset.rows(split)[:50] for split in ("val", "test"))
        warm = dataset.view(train=np.sort(drawn[-100:]), val=val, test=test)
        fit(warm, recipe, ignore)  # libraries are loaded, threads begun
        count = case.growth // 2 * times
        some = dataset.view(train=np.sort(drawn[:count]), val=val, test=test)
        started = time.process_time()
        fit(some, recipe, ignore)
        return {
            "images": count,
            "cpu_seconds": time.process_time() - started,
            "peak_mib": _peak_mib(),
        }


def _open(case: Case, zips: dict[str, Path]) -> Any:
    from imgcls.data import open_dataset
    from imgcls.data.labelling import Labelling

    scratch = Path(os.environ["BENTOML_HOME"])
    if case.data == "turned":
        turned.write(zips["clothing"], scratch / "turned.zip")
        labelling = Labelling(pattern=turned.PATTERN, target="rate")
        return open_dataset(scratch / "turned.zip", labelling=labelling)
    if case.data == "cats-and-dogs":
        with zipfile.ZipFile(zips["pets"]) as archive:
            names = [name for name in archive.namelist() if "horse" not in name.lower()]
            archive.extractall(scratch / case.data, names)
        return open_dataset(scratch / case.data)
    return open_dataset(zips[case.data])


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _rate(graph: Any, pixels: Any) -> float:
    """Images a second on all cores, by the fastest of some runs of all `pixels` at once."""
    graph.run(pixels)
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        graph.run(pixels)
        times.append(time.perf_counter() - started)
    return len(pixels) / min(times)


def _known() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def _keep(case: Case, **found: Any) -> None:
    known = _known()
    known[case.preset] = known.get(case.preset, {}) | found
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


def _write() -> None:
    known = {preset: row for preset, row in _known().items() if preset in CASES}
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    told = "\n\n".join(_sections({preset: known[preset] for preset in CASES if preset in known}))
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{told}\n\n{END}{after}")


def _sections(known: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Paragraphs of Markdown."""
    trained = {preset: row for preset, row in known.items() if "metrics" in row}
    if trained:
        yield markdown_table([_HEAD, *(_cells(CASES[p], row) for p, row in trained.items())])
        yield "The commands:"
        yield "```sh\n" + "\n".join(_command(CASES[preset]) for preset in trained) + "\n```"
    if grown := {preset: row for preset, row in known.items() if "growth" in row}:
        yield "Fitting alone, on some training images and on twice as many, networks for one epoch:"
        head = ["preset", "images", "CPU time", "times as long", "peak memory"]
        yield markdown_table([head, *(_growth(preset, row) for preset, row in grown.items())])


_HEAD = [
    "preset", "data", "accuracy, or MAE", "macro-F1", "training", "peak memory", "graph",
    "images/s at 1, 32",
]  # fmt: skip


def _cells(case: Case, row: dict[str, Any]) -> list[str]:
    metrics = row["metrics"]
    name, digits = ("mae", 2) if row["task"] == "regression" else ("accuracy", 3)
    low, high = metrics["intervals"][name]
    result = f"{metrics[name]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    if row["task"] == "regression":
        result = f"MAE {result}; of the median {metrics['mae_of_median']:.2f}"
    return [
        f"`{case.preset}`",
        f"{case.data}, {row['train_images']:,} at {row['side']} px",
        result,
        f"{metrics['macro_f1']:.3f}" if "macro_f1" in metrics else "",
        f"{row['seconds']:,.0f} s",
        f"{row['peak_mib']:,.0f} MiB",
        f"{row['graph_mib']:.1f} MiB",
        ", ".join(f"{rate:,.0f}" for rate in row["rate"].values()),
    ]


def _growth(preset: str, row: dict[str, Any]) -> list[str]:
    first, second = row["growth"]
    return [
        f"`{preset}`",
        f"{first['images']:,}, {second['images']:,}",
        f"{first['cpu_seconds']:.1f} s, {second['cpu_seconds']:.1f} s",
        f"{_ratio(row):.2f}",
        f"{first['peak_mib']:,.0f}, {second['peak_mib']:,.0f} MiB",
    ]


def _ratio(row: dict[str, Any]) -> float:
    first, second = row["growth"]
    return float(second["cpu_seconds"] / first["cpu_seconds"])


def _command(case: Case) -> str:
    words = ["imgcls", "train", f"{case.data}.zip", "--recipe", case.preset]
    for key, value in case.overrides.items():
        words += ["--set", f"{key}={json.dumps(value) if not isinstance(value, str) else value}"]
    if case.data == "turned":
        words += ["--pattern", turned.PATTERN, "--target", "rate"]
    return shlex.join(words)


if __name__ == "__main__":
    main()
