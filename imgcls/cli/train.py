"""`imgcls train` and `imgcls recipes`: the same road as the service's `/fit`."""

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgcls import console
from imgcls.cli import options
from imgcls.cli.options import Json, Track

if TYPE_CHECKING:
    from imgcls.card import ModelCard
    from imgcls.data import Dataset
    from imgcls.jobs import JobRequest, Tracker
    from imgcls.recipes import Recipe
    from imgcls.schemas import Job


def _data_unless_resumed(context: typer.Context, data: str | None) -> str | None:
    if data is None and context.params.get("resume") is None:
        raise typer.BadParameter("Give DATA, or --resume JOB.")
    return data


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            callback=_data_unless_resumed,
            help="A folder, a zip or tar, a table of images, or a stored dataset's tag (`name`).",
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="See `imgcls recipes`. [default: cnn]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A recipe in YAML instead.")
    ] = None,
    changes: options.Changes = None,
    name: options.Name = None,
    pattern: options.Pattern = None,
    table: options.Table = None,
    target: options.Target = None,
    where: options.Where = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD", help="Train a model for each value of this field: NAME-VALUE."
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=1, help="Give up after that; at most 30 days."),
    ] = None,
    baseline: options.Baseline = False,
    seed: options.Seed = 0,
    activate: options.Activate = False,
    track: Track = None,
    engine: options.Engine = "local",
    address: options.Address = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="JOB", is_eager=True, help="Go on with a job that was killed, instead of DATA."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train a model, test it, and put it into the store.

    Training is a process of its own; Ctrl-C stops it, and no model is left behind. A network's
    training goes on from its last epoch with --resume, and ends as if it had not been stopped.

    ```
    imgcls train photos.zip
    imgcls train photos/ --name pets --set epochs=20 --set augment.rotation=15 --activate
    imgcls train photos.zip --recipe linear-probe --set features.weights=r18.pth
    imgcls train photos.zip --config my-recipe.yaml --time-limit 600 --json
    imgcls train faces/ --pattern '{id}_{gender}_{rate}' --target rate --group gender
    imgcls train --resume 20261121-083000-123456-a1b2
    ```
    """
    from imgcls.cli.data import open_data
    from imgcls.files import check_name
    from imgcls.jobs import MAX_TIME_LIMIT, JobRequest, Jobs

    if resume is not None:
        of_the_job = (
            data, recipe, config, changes, name, pattern, table, target, where, group, time_limit,
            baseline, seed, track, address, engine != "local",
        )  # fmt: skip
        if any(of_the_job):
            raise typer.BadParameter("--resume takes the data, the recipe and the rest as the job.")
        entry = _registered(*follow_job(Jobs().resume(resume)), activate=activate, json=json)
        _end(entry, entry["card"].tag, activate=activate, json=json)
        return
    assert data is not None
    if time_limit is not None and time_limit > MAX_TIME_LIMIT:
        raise typer.BadParameter(f"--time-limit may be {MAX_TIME_LIMIT:.0f} seconds at most.")
    if recipe is not None and config is not None:
        raise typer.BadParameter("Give either --recipe or --config.")
    chosen = choose_recipe(recipe, config, changes or [])
    if name is not None:
        check_name(name, "model name")
    if activate and group is not None:
        raise typer.BadParameter("--activate is for one model; --group makes several.")
    read_as = options.labelling(pattern, target, where, group)
    scanner = options.scanner(engine, address)
    cluster = options.cluster(engine, address)
    with open_data(data, seed, read_as, table, scanner=scanner) as dataset:
        tag = dataset.tag
        console.note(f"{tag}: {len(dataset):,} images, {dataset.contents}")
        whole = name or tag.partition(":")[0]
        names: dict[str | None, str] = {None: whole}
        if group is not None:
            names = group_names(dataset, whole)
        else:
            dataset.check_trainable()
    done = []
    for value, model in names.items():
        request = JobRequest(
            dataset=tag,
            group=value,
            recipe=chosen.model_dump(mode="json"),
            name=model,
            time_limit=time_limit,
            baseline=baseline,
            seed=seed,
            track=trackers(track),
            cluster=cluster,
        )
        job, card = run_job(request)
        done.append(_registered(job, card, activate=activate, json=json))
    told = done[0] if group is None else {"models": done}
    _end(told, card.tag, activate=activate, json=json)


def _registered(job: "Job", card: "ModelCard", *, activate: bool, json: bool) -> dict[str, Any]:
    """Show what a training came to, made the active model where that was asked for."""
    from imgcls.cli.models import activate as make_active
    from imgcls.cli.models import metric_tables

    if activate:
        make_active(card.tag)
    if not json:
        console.show(*metric_tables(card))
        console.show(f"registered {card.tag}" + (" and made it active" if activate else ""))
    return {"job": job, "card": card, "active": activate}


def _end(told: dict[str, Any], tag: str, *, activate: bool, json: bool) -> None:
    if json:
        console.show_json(told)
        return
    if not activate:
        console.note(f"To use it:   imgcls models set {tag}")
    console.note("To serve it: imgcls serve")


def group_names(dataset: "Dataset", name: str) -> dict[str | None, str]:
    """The name of each group's model, `name-value`, by the group.

    Raises `BadArgument` where a name cannot be one, and `BadDataset` where a group has too few
    images: before anything is trained.
    """
    from imgcls.data import open_dataset
    from imgcls.data.summary import slug
    from imgcls.errors import BadArgument
    from imgcls.files import check_name

    names: dict[str | None, str] = {
        value: check_name(f"{name}-{slug(value)}", "model name") for value in dataset.groups
    }
    if len(set(names.values())) < len(names):
        raise BadArgument(
            f"Two groups of {', '.join(dataset.groups)} would give their models one name; change "
            "the values of the field, or train with --where on each."
        )
    for value in dataset.groups:
        with open_dataset(dataset.tag, seed=dataset.seed, group=value) as part:
            part.check_trainable()
    return names


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Print this one in full, as YAML.")
    ] = None,
    json: Json = False,
) -> None:
    """List the recipes, or print one in full, ready to be edited.

    ```
    imgcls recipes
    imgcls recipes cnn > my-recipe.yaml
    imgcls train photos.zip --config my-recipe.yaml
    ```
    """
    from imgcls.recipes import DEFAULT_RECIPE, PRESETS, load_recipe, to_yaml

    if name is not None:
        recipe = load_recipe(name)
        if json:
            console.show_json(recipe)
        else:
            console.show(to_yaml(recipe).rstrip())
    elif json:
        listed: list[dict[str, Any]] = [
            {
                "name": key,
                "summary": preset.summary,
                "good_for": preset.good_for,
                "cost": preset.cost,
                "task": preset.task,
                "default": key == DEFAULT_RECIPE,
            }
            for key, preset in PRESETS.items()
        ]
        console.show_json({"recipes": listed})
    else:
        rows = [
            (key, preset.summary, preset.good_for, preset.cost) for key, preset in PRESETS.items()
        ]
        console.show(console.table(["recipe", "what it does", "good for", "cost"], rows))
        console.note("All settings of one: imgcls recipes NAME")


def choose_recipe(name: str | None, config: Path | None, changes: list[str]) -> "Recipe":
    """The recipe by name or file, changed; files that it names as absolute paths."""
    from imgcls.errors import BadRecipe
    from imgcls.recipes import (
        DEFAULT_RECIPE,
        load_recipe,
        parse_override,
        read_recipe_file,
        with_weights,
    )

    source = read_recipe_file(config) if config is not None else name or DEFAULT_RECIPE
    recipe = load_recipe(source, dict(parse_override(change) for change in changes))

    def found(weights: str) -> Path:
        path = Path(os.path.abspath(os.path.expanduser(weights)))
        if not path.is_file():
            raise BadRecipe(
                f"There is no weights file {path}; give `weights` as imagenet, none, or the "
                "path of a state dict."
            )
        return path

    # The job runs elsewhere: only an absolute path means the same file there.
    return with_weights(recipe, found)


def trackers(names: list[str] | None) -> "tuple[Tracker, ...]":
    """Raises `BadArgument` for a tracker that there is not."""
    from imgcls.errors import BadArgument
    from imgcls.jobs import TRACKERS

    for name in names or []:
        if name not in TRACKERS:
            raise BadArgument(
                f"There is no tracker {name[:40]!r}; there are: {', '.join(TRACKERS)}."
            )
    return tuple(tracker for tracker in TRACKERS if tracker in (names or []))


def run_job(request: "JobRequest") -> "tuple[Job, ModelCard]":
    """Start a job and follow it."""
    from imgcls.jobs import Jobs

    return follow_job(Jobs().start(request))


def follow_job(job: "Job") -> "tuple[Job, ModelCard]":
    """Show a job's progress, and return its end and the model it made.

    Whatever interrupts the wait cancels the job. Raises the error that it failed with.
    """
    from imgcls.cli.jobs import watch
    from imgcls.errors import JobOver
    from imgcls.jobs import Jobs
    from imgcls.registry import Registry

    jobs = Jobs()
    log = jobs.root / job.id / "log.txt"
    console.note(f"job {job.id} (log: {log})")
    try:
        job = watch(jobs, job.id)
    except BaseException:
        with contextlib.suppress(JobOver):
            jobs.cancel(job.id)
            console.note(f"job {job.id}: cancelled (imgcls train --resume {job.id} goes on)")
        raise
    if job.tag is None:
        failure = job.failure()
        raise type(failure)(f"{failure.message} The log is {log}.", detail=failure.detail)
    return job, Registry().get(job.tag)
