"""`imgcls search` and `imgcls leaderboard`: the best recipe within a budget of time."""

from typing import TYPE_CHECKING, Annotated

import typer

from imgcls import console
from imgcls.cli import options
from imgcls.cli.options import Data, Json, Track

if TYPE_CHECKING:
    from rich.table import Table

    from imgcls.searches import Leaderboard, Standing


def search(
    data: Data,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="All that it may take: 90s, 10m, 2h.")
    ] = "10m",
    recipe: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Choose among these; may be repeated. [default: cheap]"),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="At most so many trials.", show_default=False)
    ] = None,
    name: options.Name = None,
    pattern: options.Pattern = None,
    table: options.Table = None,
    target: options.Target = None,
    where: options.Where = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget an earlier search of this name.")
    ] = False,
    baseline: options.Baseline = False,
    seed: options.Seed = 0,
    activate: options.Activate = False,
    track: Track = None,
    json: Json = False,
) -> None:
    """Look for the best recipe and settings, and put what they make into the store.

    Cheap recipes come first, then the default one, then variations of what is still in the race.
    Trials are compared on validation images, the winner and the default recipe once on the test
    images. Ctrl-C stops it; the same command goes on where it was.

    ```
    imgcls search photos.zip --budget 10m
    imgcls search photos.zip --budget 1h --recipe cnn --recipe hog-svc --activate
    imgcls search photos.zip --budget 30m --track mlflow
    ```
    """
    from imgcls.cli.data import open_data
    from imgcls.cli.models import activate as make_active
    from imgcls.cli.train import run_job, trackers
    from imgcls.files import check_name
    from imgcls.jobs import SEARCH, JobRequest
    from imgcls.searches import SearchFolder, SearchPlan, seconds_of

    plan = SearchPlan(
        budget=seconds_of(budget), recipes=tuple(recipe or ()), trials=trials, fresh=fresh
    )
    chosen_trackers = trackers(track)
    if name is not None:
        check_name(name, "model name")
    read_as = options.labelling(pattern, target, where, None)
    with open_data(data, seed, read_as, table) as dataset:
        tag = dataset.tag
        console.note(f"{tag}: {len(dataset):,} images, {dataset.contents}")
        dataset.check_trainable()
    folder = SearchFolder(name or tag.partition(":")[0])
    folder.check(plan, tag, seed)
    request = JobRequest(
        dataset=tag,
        recipe=SEARCH,
        name=folder.name,
        baseline=baseline,
        seed=seed,
        search=plan,
        track=chosen_trackers,
    )
    job, card = run_job(request)
    if activate:
        make_active(card.tag)
    found = folder.leaderboard()
    if json:
        console.show_json({"job": job, "card": card, "leaderboard": found, "active": activate})
        return
    console.show(*_tables(found))
    console.show(f"registered {card.tag}" + (" and made it active" if activate else ""))


def leaderboard(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name in the search.")],
    json: Json = False,
) -> None:
    """Show what a search has found, also while it runs.

    ```
    imgcls leaderboard photos
    ```
    """
    from imgcls.searches import SearchFolder

    found = SearchFolder(name).leaderboard()
    if json:
        console.show_json(found)
    else:
        console.show(*_tables(found))


def _tables(found: "Leaderboard") -> "list[Table | str]":
    columns = ["#", "trial", f"#{found.metric}", "#95%", "#behind", "", "#time", "settings"]
    made: list[Table | str] = [
        f"{found.name}: {found.metric} on {console.plural(found.images, 'validation image')} of "
        f"{found.dataset}",
        console.table(columns, [_row(n, row) for n, row in enumerate(found.trials, 1)]),
    ]
    noise = sum(row.noise is True for row in found.trials)
    if noise:
        made.append(
            f"{console.plural(noise, 'trial')} marked `noise` may be as good as the best: the "
            "intervals of the differences hold for all trials together."
        )
    if found.verdict is not None:
        made.append(found.verdict.text)
    elif found.tag is not None:
        made.append("The default recipe was not over in time, so there is nothing to compare with.")
    return made


def _row(place: int, row: "Standing") -> tuple[object, ...]:
    settings = ", ".join(f"{key}={_short(value)}" for key, value in row.settings.items())
    trial = f"{row.recipe}-{row.number}"
    if row.value is None or row.low is None or row.high is None:
        why = f"failed: {(row.reason or '')[:60]}" if row.state == "failed" else row.state
        return ("", trial, "", "", "", why, console.span(row.seconds), settings)
    return (
        place,
        trial,
        f"{row.value:.4f}",
        f"{row.low:.3f} to {row.high:.3f}",
        "" if row.behind is None else f"{row.behind[0]:+.3f} to {row.behind[1]:+.3f}",
        {None: "best", True: "noise", False: "worse"}[row.noise],
        console.span(row.seconds),
        settings,
    )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
