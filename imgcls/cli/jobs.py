"""`imgcls jobs`: the training jobs of this home, whoever started them."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from imgcls import console
from imgcls.cli.options import Json

if TYPE_CHECKING:
    from imgcls.jobs import Jobs
    from imgcls.schemas import Job

app = typer.Typer(no_args_is_help=True, help="List, follow and cancel training jobs.")

JobId = Annotated[str, typer.Argument(metavar="ID", help="As `imgcls jobs list` shows it.")]


def _jobs() -> "Jobs":
    from imgcls.jobs import Jobs

    return Jobs()


@app.command("list")
def list_jobs(json: Json = False) -> None:
    """List all training jobs, newest first.

    ```
    imgcls jobs list
    ```
    """
    from imgcls.schemas import JobsResponse

    jobs = _jobs().all()
    if json:
        console.show_json(JobsResponse(jobs=jobs))
    elif not jobs:
        console.note("There are no jobs yet: `imgcls train DATA` starts one.")
    else:
        columns = ["id", "model", "recipe", "state", "stage", "#done", "created"]
        console.show(console.table(columns, [_row(job) for job in jobs]))


@app.command()
def show(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it is over.")] = False,
    json: Json = False,
) -> None:
    """Show where a job stands; exit code 1 if it failed.

    ```
    imgcls jobs show 20261121-083000-123456-a1b2 --follow
    ```
    """
    job = watch(_jobs(), job_id) if follow else _jobs().get(job_id)
    if json:
        console.show_json(job)
    else:
        told = job.model_dump(mode="json").items()
        console.show(console.facts([(k, v) for k, v in told if v not in (None, {})]))
    if job.state == "failed":
        raise typer.Exit(1)


@app.command()
def cancel(job_id: JobId, json: Json = False) -> None:
    """Stop a job that waits or runs.

    ```
    imgcls jobs cancel 20261121-083000-123456-a1b2
    ```
    """
    job = _jobs().cancel(job_id)
    if json:
        console.show_json(job)
    else:
        console.show(f"{job.id}: {job.state}")


@app.command()
def log(job_id: JobId, json: Json = False) -> None:
    """Print the end of what the training process printed.

    ```
    imgcls jobs log 20261121-083000-123456-a1b2
    ```
    """
    text = _jobs().log(job_id)
    if json:
        console.show_json({"id": job_id, "log": text})
    else:
        sys.stdout.write(console.clean(text.replace("\r\n", "\n").replace("\r", "\n")))


def watch(jobs: "Jobs", job_id: str) -> "Job":
    """Show a job's progress until it is over, and return its end."""
    with console.Stages() as stages:
        for job in jobs.follow(job_id):
            if not job.over:
                stages.update(job.stage, job.progress, _progress(job), eta=job.eta_seconds)
    return job


def _progress(job: "Job") -> str:
    if job.stage not in ("training", "searching"):  # of these are the figures, not of what follows
        return ""
    parts = []
    if job.epoch is not None:
        parts.append(f"epoch {job.epoch}" + (f"/{job.epochs}" if job.epochs else ""))
    parts += [f"{key} {value:.4g}" for key, value in list(job.metrics.items())[:4]]
    return ", ".join(parts)


def _row(job: "Job") -> tuple[object, ...]:
    return (
        job.id,
        job.tag or job.name,
        job.recipe,
        job.state,
        "" if job.over else job.stage,
        "" if job.progress is None or job.over else f"{job.progress:.0%}",
        f"{job.created_at.astimezone():%Y-%m-%d %H:%M}",
    )
