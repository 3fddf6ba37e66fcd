"""How many planted faults `imgcls data findings` finds, and how often it cries wolf.

    python -m benchmarks.findings clothing.zip
    python -m benchmarks.findings clothing.zip --recipe hog-svc

A copy of a dataset in split folders gets 20 exact copies and 20 smaller or newly encoded ones of
training images in its test split, 10 files cut short, 10 copies under a second label, and a third
of one class under its plural. What is reported with a confidence of 0.9 and more must hold at least
95% of them, and less than 5% of it may be of no planted fault. What is reported of the untouched
data as well is no alarm of this kind: it is printed, to be looked at. Then the fixes are applied,
and with `--recipe`, models of the faulty and of the fixed version are trained and compared.
"""

import argparse
import io
import os
import random
import tempfile
import time
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from imgcls.findings import Finding

SURE = 0.9
COPIES, SMALLER, CUT, CONFLICTS = 20, 20, 10, 10


@dataclass
class Planted:
    """Faults by kind: the paths that a finding of that kind must name."""

    leak: list[set[str]] = field(default_factory=list)
    unreadable: list[set[str]] = field(default_factory=list)
    label_conflict: list[set[str]] = field(default_factory=list)
    similar_classes: list[set[str]] = field(default_factory=list)
    """Labels of the two classes."""


def plant(source: Path, target: Path, *, share: float = 1.0, seed: int = 0) -> Planted:
    """Write the faulty copy; `share` is how much of each fault there is to be."""
    draw = random.Random(seed)
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    planted = Planted()
    train = sorted(name for name in files if name.startswith("train/"))
    draw.shuffle(train)
    labels = sorted({name.split("/")[1] for name in train})

    def some(count: int) -> list[str]:
        return [train.pop() for _ in range(max(1, round(count * share)))]

    for number, name in enumerate(some(COPIES)):
        copy = f"test/{name.split('/')[1]}/copy-{number}.jpg"
        files[copy] = files[name]
        planted.leak.append({name, copy})
    for number, name in enumerate(some(SMALLER)):
        copy = f"test/{name.split('/')[1]}/smaller-{number}.jpg"
        files[copy] = _encoded_anew(files[name], draw)
        planted.leak.append({name, copy})
    for name in some(CUT):
        files[name] = files[name][: round(len(files[name]) * draw.uniform(0.2, 0.95))]
        planted.unreadable.append({name})
    for number, name in enumerate(some(CONFLICTS)):
        other = draw.choice([label for label in labels if label != name.split("/")[1]])
        copy = f"train/{other}/conflict-{number}.jpg"
        files[copy] = files[name]
        planted.label_conflict.append({name, copy})
    renamed = next(label for label in labels if not label.endswith("s"))
    plural = renamed + "s"
    for name in [name for name in train if name.split("/")[1] == renamed][::3]:
        files[name.replace(f"/{renamed}/", f"/{plural}/")] = files.pop(name)
    planted.similar_classes.append({renamed, plural})
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return planted


def _encoded_anew(data: bytes, draw: random.Random) -> bytes:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    scale = draw.uniform(0.5, 1)
    sides = (round(picture.width * scale), round(picture.height * scale))
    buffer = io.BytesIO()
    picture.resize(sides, Image.Resampling.LANCZOS).save(
        buffer, "JPEG", quality=draw.randint(50, 95)
    )
    return buffer.getvalue()


@dataclass
class Score:
    found: dict[str, int]
    planted: dict[str, int]
    alarms: "list[Finding]"
    """Sure findings of nothing that was planted, and that the untouched data does not have."""
    own: "list[Finding]"
    """Those that it has."""
    sure: int

    @property
    def recall(self) -> float:
        return sum(self.found.values()) / sum(self.planted.values())

    @property
    def false_share(self) -> float:
        return len(self.alarms) / max(1, self.sure - len(self.own))


def score(planted: Planted, findings: "list[Finding]", before: "list[Finding]") -> Score:
    """What of the planted faults is among the sure findings; `before` are the untouched data's."""
    sure = [one for one in findings if one.confidence >= SURE]
    known = {frozenset(one.paths) for one in before}
    by_kind = {kind: list(faults) for kind, faults in vars(planted).items()}
    found: dict[str, int] = defaultdict(int)
    alarms, own = [], []
    for one in sure:
        named = set(one.paths)
        if one.kind == "similar_classes" and one.fix is not None:
            named = {*one.fix.paths, one.fix.value or ""}
        hits = [fault for fault in by_kind.get(one.kind, []) if fault <= named]
        found[one.kind] += len(hits)
        if not hits:
            (own if frozenset(one.paths) in known else alarms).append(one)
    planted_counts = {kind: len(faults) for kind, faults in by_kind.items()}
    return Score(dict(found), planted_counts, alarms, own, len(sure))


def main() -> None:
    parser = argparse.ArgumentParser(description="Planted faults, found and mended.")
    parser.add_argument("data", type=Path, help="a zip of split folders of class folders")
    parser.add_argument("--recipe", help="train before and after, and compare")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="findings-") as home:
        os.environ |= {"BENTOML_HOME": home, "IMGCLS_HOME": f"{home}/imgcls"}
        passed = _measure(arguments.data, Path(home), arguments.recipe)
    if not passed:
        raise SystemExit("Too few faults were found, or too many alarms were false.")


def _measure(data: Path, folder: Path, recipe: str | None) -> bool:
    from imgcls.data import DatasetStore, open_dataset
    from imgcls.findings import find
    from imgcls.findings.mending import to_fixes

    with open_dataset(data, name="untouched") as dataset:
        before = find(dataset)
    planted = plant(data, folder / "faulty.zip")
    with open_dataset(folder / "faulty.zip") as dataset:
        started = time.perf_counter()
        findings = find(dataset)
        seconds, tag, images = time.perf_counter() - started, dataset.tag, len(dataset)
    result = score(planted, findings, before)
    print(f"{images:,} images, {seconds:.2f} s for all findings")
    for kind, count in result.planted.items():
        print(f"{kind:16} {result.found.get(kind, 0):3} of {count}")
    print(f"found {result.recall:.1%}; false alarms {result.false_share:.1%} of {result.sure} sure")
    for one in result.alarms:
        print(f"false alarm: {one.kind} {one.confidence} {one.message} {one.paths[:3]}")
    for one in result.own:
        print(f"of the untouched data: {one.kind} {one.confidence} {one.message} {one.paths[:3]}")
    rows = to_fixes(findings)
    fixed = DatasetStore().add_fixed(tag, rows)
    print(f"fixed by {len(rows)} lines: {fixed.images:,} images, {len(fixed.labels)} classes")
    with open_dataset(fixed.tag) as dataset:
        left = score(planted, find(dataset), before)
    print(f"left after the fix: {sum(left.found.values())} of {sum(left.planted.values())}")
    if recipe is not None:
        _train(tag, fixed.tag, recipe)
    return result.recall >= 0.95 and result.false_share < 0.05 and not any(left.found.values())


def _train(faulty: str, fixed: str, recipe: str) -> None:
    from imgcls.comparison import compare
    from training.run import train

    tags = [train(tag, recipe, name="model").tag for tag in (faulty, fixed)]
    print(*compare(*tags).lines(), sep="\n")


if __name__ == "__main__":
    main()
