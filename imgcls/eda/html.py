"""HTML: what a dataset holds and what is wrong with it, as one page for people.

However large the dataset is, the page shows no more than so many classes, findings and pictures,
and says what it leaves out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imgcls.data.layout import SPLITS
from imgcls.data.twins import SURE
from imgcls.eda import charts, faults, pictures
from imgcls.eda.samples import MAX_CLASSES, choose
from imgcls.page import document, table, text, tile

if TYPE_CHECKING:
    from imgcls.data import Dataset
    from imgcls.eda.types import GroupStats, Profile, Rgb
    from imgcls.findings import Finding

_LOOKS = {
    "brightness": "Brightness: mean grey, 0 is black and 255 white",
    "blur": "Sharpness: variance of the Laplacian of grey",
    "aspect": "Aspect: width / height",
    "file_size": "File size",
    "width": "Width in pixels",
    "height": "Height in pixels",
}
"""Histograms of the profile that are drawn."""
_TABLE = 200
"""Classes in the table at most."""
_COLUMNS = ("", "images", "unreadable", "copies", "width", "height", "bytes", "mean RGB", "std RGB")


def page(dataset: "Dataset", profile: "Profile", findings: Sequence["Finding"]) -> str:
    """The whole page: findings with their pictures, figures, samples of each class."""
    parts = [
        _headline(dataset, profile, findings),
        faults.overview(findings),
        *faults.sections(dataset, findings),
        _classes(profile),
        _target(profile),
        _samples(dataset),
        _looks(profile),
        _sizes(profile),
        _splits(profile),
    ]
    style = charts.STYLE + pictures.STYLE + faults.STYLE
    return document(profile.tag, parts, style)


def _headline(dataset: "Dataset", profile: "Profile", findings: Sequence["Finding"]) -> str:
    overall = profile.overall
    counts = [group.images for group in profile.classes.values() if group.images]
    surest = sum(finding.confidence >= SURE for finding in findings)
    tiles = [tile("images", f"{overall.images:,}", _bytes(overall.bytes_total))]
    if counts:
        times = f"largest / smallest: {max(counts) / min(counts):.1f}"
        tiles.append(tile("classes", f"{len(counts):,}", times))
    if profile.target is not None:
        target = profile.target
        tiles.append(tile(target.name, f"{target.mean:.4g}", f"{target.min:g} to {target.max:g}"))
    for split in SPLITS:
        images = profile.splits[split].images
        tiles.append(tile(split, f"{images:,}", f"{images / max(1, overall.images):.0%}"))
    tiles.append(tile("findings", f"{len(findings):,}", f"{surest:,} of high confidence"))
    subtitle = (
        f"<p>A {dataset.kind} with {text(dataset.contents)}. Splits that it does not state are "
        f"those of seed {profile.seed}. Figures are of the images that can be read.</p>"
    )
    return f"<h1>{text(profile.tag)}</h1>{subtitle}<div>{''.join(tiles)}</div>"


def _classes(profile: "Profile") -> str:
    if not profile.classes:
        return ""
    largest = sorted(profile.classes.items(), key=lambda item: -item[1].images)
    rows = [
        (name, {s: profile.split_classes[s][name].images for s in SPLITS}, group.mean_rgb)
        for name, group in largest[:MAX_CLASSES]
    ]
    figures = [_figures(name, group) for name, group in largest[:_TABLE]]
    return (
        "<h2>Classes</h2>"
        + f"<p>{_largest(len(rows), len(largest))}The square before a name is the mean colour of "
        + "its images.</p>"
        + charts.legend(SPLITS)
        + charts.bars(rows, "Images of each class, by split")
        + f"<details><summary>Figures of each class. {_largest(len(figures), len(largest))}"
        + f"</summary>{table(_COLUMNS, figures)}</details>"
    )


def _target(profile: "Profile") -> str:
    target = profile.target
    if target is None:
        return ""
    groups = ", ".join(f"{text(name)} ({n:,})" for name, n in list(target.groups.items())[:_TABLE])
    groups = groups and f" Groups: {groups}."
    return (
        f"<h2>{text(target.name)}</h2><p>Mean {target.mean:.4g}, deviation {target.std:.4g}. "
        f"Always saying the median, {target.median:.4g}, is wrong by {target.mae_of_median:.4g} on "
        f"average.{groups}</p>"
        + charts.legend(SPLITS)
        + charts.histogram(target.edges, target.counts, "Images by target, by split")
    )


def _samples(dataset: "Dataset") -> str:
    chosen = choose(dataset)
    left = _largest(len(chosen), len(dataset.labels))
    return f"<h2>Samples</h2><p>{left}Chosen at random.</p>" + pictures.strips(dataset, chosen)


def _looks(profile: "Profile") -> str:
    drawn = []
    for name, title in _LOOKS.items():
        edges = profile.edges.get(name, [])
        if len(edges) > 2:  # else all are alike
            counts = {split: profile.splits[split].histograms[name] for split in SPLITS}
            shown = _bytes if name == "file_size" else charts.number
            chart = charts.histogram(edges, counts, title, width=460, shown=shown)
            drawn.append(f"<div><h3>{title}</h3>{chart}</div>")
    if not drawn:
        return ""
    return (
        "<h2>What the images are like</h2>"
        + charts.legend(SPLITS)
        + f"<div class=charts>{''.join(drawn)}</div>"
    )


def _sizes(profile: "Profile") -> str:
    sizes = profile.sizes
    points = [(size.width, size.height, size.images) for size in sizes.sizes]
    common = ", ".join(f"{wide:,} x {high:,} ({n:,})" for wide, high, n in points[:5])
    formats = ", ".join(f"{text(name)} {n:,}" for name, n in profile.overall.formats.items())
    heading = f"<h2>Sizes and formats</h2><p>{formats}. "
    if sizes.total == 1:
        return f"{heading}All are {points[0][0]:,} x {points[0][1]:,} pixels.</p>"
    return (
        f"{heading}{sizes.total:,} different sizes; the most frequent: {common}. Images on the "
        "line are square.</p>" + charts.bubbles(points, "Widths and heights, in pixels")
    )


def _splits(profile: "Profile") -> str:
    rows = [_figures("all", profile.overall)]
    rows += [_figures(split, profile.splits[split]) for split in SPLITS]
    return "<h2>Figures</h2>" + table(_COLUMNS, rows)


def _figures(name: str, group: "GroupStats") -> tuple[str, ...]:
    sides = [f"{s.min:,} - {s.max:,}" if s else "-" for s in (group.width, group.height)]
    return (
        name,
        f"{group.images:,}",
        f"{group.unreadable:,}",
        f"{group.duplicates:,}",
        *sides,
        _bytes(group.bytes_total),
        _rgb(group.mean_rgb),
        _rgb(group.std_rgb),
    )


def _largest(shown: int, total: int) -> str:
    return f"The {shown:,} largest of {total:,} classes. " if 0 < shown < total else ""


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _rgb(values: "Rgb | None") -> str:
    return " ".join(f"{value:.2f}" for value in values) if values else "-"
