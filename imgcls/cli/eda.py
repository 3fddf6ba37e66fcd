"""`imgcls eda`: what is in the data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgcls import console
from imgcls.cli import options
from imgcls.cli.options import Data, Json
from imgcls.files import check_folder, write_atomic

if TYPE_CHECKING:
    from rich.table import Table

    from imgcls.eda import GroupStats, Profile, TargetStats

_BAR = 30
"""Characters of the longest bar of a histogram."""
_LISTED = 5
"""Bad files shown to people; `--json` gives more."""


def eda(
    data: Data,
    pattern: options.Pattern = None,
    table: options.Table = None,
    target: options.Target = None,
    where: options.Where = None,
    group: options.Group = None,
    seed: options.Seed = 0,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with plots, samples and findings."),
    ] = None,
    engine: options.Engine = "local",
    address: options.Address = None,
    json: Json = False,
) -> None:
    """Look at data before training: counts, sizes, colours, targets, duplicates, bad files.

    A path is indexed in one pass and remembered; unchanged data opens at once.

    ```
    imgcls eda photos.zip
    imgcls eda photos/ --json
    imgcls eda photos.zip --html photos.html
    imgcls eda faces/ --pattern '{id}_{gender}_{rate}_{votes}' --target rate --where 'votes>=5'
    ```
    """
    from imgcls.cli.data import open_data
    from imgcls.eda import profile

    if html is not None:
        check_folder(html)
    read_as = options.labelling(pattern, target, where, group)
    scanner = options.scanner(engine, address)
    with open_data(data, seed, read_as, table, scanner=scanner) as dataset:
        found = profile(dataset)
        if html is not None:
            from imgcls.eda.html import page
            from imgcls.findings import find

            write_atomic(html, page(dataset, found, find(dataset)))
    if json:
        console.show_json(found)
    elif html is not None:
        console.show(f"wrote {html}")
    else:
        console.show(*profile_tables(found))
        console.note(f"To look for faults: imgcls data findings {found.tag}")


def profile_tables(profile: "Profile") -> "list[Table | str]":
    """A profile for people: splits and classes, then what is wrong with the data."""
    columns = ["", "#images", "#bad", "#twice", "#pixels", "#least", "#most", "mean RGB", "std RGB"]
    splits = [_row(name, stats) for name, stats in profile.splits.items()]
    made: list[Table | str] = [
        profile.tag,
        console.table(columns, [_row("all", profile.overall), *splits]),
    ]
    if profile.target is not None:
        made += _target(profile.target)
    else:
        classes = [_row(name, stats) for name, stats in profile.classes.items()]
        made.append(console.table(["class", *columns[1:]], classes))
    formats = ", ".join(f"{name} {n:,}" for name, n in profile.overall.formats.items())
    made.append(f"formats: {formats or 'none'}")
    sizes = ", ".join(f"{s.width} x {s.height} ({s.images:,})" for s in profile.sizes.sizes[:5])
    made.append(f"sizes: {sizes}" + (", ..." if profile.sizes.total > 5 else ""))
    doubles = profile.duplicates
    if doubles.total:
        made.append(
            f"{doubles.images:,} files repeat another one exactly; of {doubles.total:,} such "
            f"groups {doubles.across_splits:,} cross splits and {doubles.across_labels:,} classes"
        )
    if profile.unreadable.total:
        made.append(f"{console.plural(profile.unreadable.total, 'file')} cannot be read:")
        made += [f"  {bad.path}: {bad.reason}" for bad in profile.unreadable.images[:_LISTED]]
    return made


def _target(target: "TargetStats") -> "list[Table | str]":
    """What there is to be predicted: its histogram, and the error to beat."""
    totals = [sum(counts) for counts in zip(*target.counts.values(), strict=True)]
    largest = max(totals)
    rows = [
        (
            f"{low:.4g} - {high:.4g}",
            f"{total:,}",
            *(f"{target.counts[split][at]:,}" for split in target.counts),
            "\N{FULL BLOCK}" * round(_BAR * total / largest),
        )
        for at, (low, high, total) in enumerate(
            zip(target.edges, target.edges[1:], totals, strict=False)
        )
    ]
    splits = [f"#{split}" for split in target.counts]
    made: list[Table | str] = [
        console.table([target.name, "#images", *splits, ""], rows),
        f"{target.name}: {target.min:.4g} to {target.max:.4g}, mean {target.mean:.4g}, deviation "
        f"{target.std:.4g}; always saying the median, {target.median:.4g}, is wrong by "
        f"{target.mae_of_median:.4g} on average",
    ]
    if target.groups:
        made.append("groups: " + ", ".join(f"{k} ({n:,})" for k, n in target.groups.items()))
    return made


def _row(name: str, stats: "GroupStats") -> tuple[object, ...]:
    pixels = stats.pixels
    return (
        name,
        f"{stats.images:,}",
        f"{stats.unreadable:,}",
        f"{stats.duplicates:,}",
        *((f"{pixels.mean:,.0f}", f"{pixels.min:,}", f"{pixels.max:,}") if pixels else "---"),
        _rgb(stats.mean_rgb),
        _rgb(stats.std_rgb),
    )


def _rgb(values: tuple[float, float, float] | None) -> str:
    return " ".join(f"{value:.2f}" for value in values) if values else "-"
