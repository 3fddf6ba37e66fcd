"""Training jobs: started, queued, followed and cancelled through folders alone.

    jobs/<id>/request.json   what to train
              process.json   the process that does
              lock           held (flock) by that process for as long as it lives
              events.jsonl   progress; each line holds all that is known by then
              log.txt        what the process printed
              checkpoint/    the last epoch of a network's training, until it has succeeded
              cancel         somebody asked it to stop
              result.json    written last; a job without it whose lock is free has died

The process inherits the locked descriptor, so that being alive cannot be confused with a
recycled process id, and a restart of the server loses nothing. Any process may read any job.
"""

import contextlib
import fcntl
import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Literal, TypedDict, Unpack

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from imgcls.errors import Busy, Conflict, DatasetInUse, JobNotFound, JobOver
from imgcls.files import locked, write_atomic
from imgcls.schemas import Job, follow
from imgcls.searches import SearchPlan
from imgcls.settings import get_settings

_JOB_ID = re.compile(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{4}")
MAX_TIME_LIMIT = 30 * 86_400.0
"""Seconds; what a timer can hold, and longer than anybody waits."""
CHECKPOINT_DIR = "checkpoint"
_KEEP_CHECKPOINTS = 8
"""Jobs that are over, the newest, whose checkpoints are kept: each is several times its network."""
_POLL = 0.2
SEARCH = {"kind": "search"}
"""The recipe of a job that looks for one."""
Tracker = Literal["tensorboard", "mlflow"]
TRACKERS: tuple[Tracker, ...] = ("tensorboard", "mlflow")
_KILL_AFTER = 5.0
"""Seconds between asking a process to stop and killing it."""


class Told(TypedDict, total=False):
    """What a training says of itself with a stage."""

    progress: float | None
    """Of the stage, 0 to 1."""
    epoch: int | None
    epochs: int | None
    metrics: dict[str, float] | None
    message: str | None
    spent: float | None
    """Seconds that the stage has taken, those of an earlier run that it goes on from included."""


class JobRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    """A stored dataset's tag, or a path on this machine."""
    group: str | None = None
    """Of a dataset in groups: the one to train on."""
    recipe: dict[str, Any]
    name: str
    """The model's name in the store."""
    time_limit: float | None = Field(default=None, gt=0, le=MAX_TIME_LIMIT)
    """Seconds that the training may take once its turn has come."""
    baseline: bool = False
    seed: int = 0
    """Of the splits; the recipe has its own for the training."""
    search: SearchPlan | None = None
    """A search among recipes; `recipe` then says so and nothing else: see `SEARCH`."""
    track: tuple[Tracker, ...] = ()
    """Where the figures of the run go besides the job's own events."""
    cluster: str | None = None
    """Address of the Ray cluster that computes features; `local` starts one."""


class _Process(BaseModel):
    """`process.json`."""

    pid: int = Field(gt=1)
    """Its process group's number too."""


class JobEvent(BaseModel):
    """A line of `events.jsonl`: all that is known by then, so that the last line is enough."""

    time: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    stage: str
    stage_began: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    """Of a stage that an earlier run had begun: as if that had gone on until now."""
    started_at: AwareDatetime | None = None
    """When the job's turn came."""
    progress: float | None = None
    """Share of the stage that is done, 0 to 1."""
    epoch: int | None = None
    epochs: int | None = None
    metrics: dict[str, float] = {}
    """The newest value of every metric so far."""
    message: str | None = None


class JobResult(BaseModel):
    state: Literal["succeeded", "failed", "cancelled"]
    tag: str | None = None
    code: str | None = None
    reason: str | None = None
    finished_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


class Jobs:
    """The jobs of one home. Every call reads the folders afresh."""

    def __init__(
        self,
        home: Path | None = None,
        trainer: Sequence[str] = (sys.executable, "-P", "-m", "training"),
    ) -> None:
        self.root = (home or get_settings().home) / "jobs"
        self._trainer = trainer
        """The command that takes `--job FOLDER`; `-P` keeps a user's own folder `training` out."""

    def start(self, request: JobRequest) -> Job:
        """Start a training process, which waits for its turn by itself.

        Raises `Busy` when too many jobs wait already, `Conflict` where training is not installed.
        """
        with locked(self.root / "start.lock"):
            self._make_room()
            return self._start(request)

    def resume(self, job_id: str) -> Job:
        """Start the training of a job that came to no model again, as a new job.

        A network's goes on behind the last epoch that the old job finished; that job's checkpoint
        becomes the new one's. A search goes on with what it has found. Raises `JobNotFound`,
        `JobOver` where the job has succeeded, `Conflict` where it is not over, and as `start` does.
        """
        with locked(self.root / "start.lock"):
            folder = self._folder(job_id)
            job = self.get(job_id)
            if not job.over or (job.state != "succeeded" and _is_locked(folder / "lock")):
                raise Conflict(f"The job {job_id} still runs or waits; cancel it first, or wait.")
            if job.state == "succeeded":
                raise JobOver(f"The job {job_id} has succeeded: its model is {job.tag}.")
            self._make_room(keep=folder)
            request = JobRequest.model_validate_json((folder / "request.json").read_bytes())
            # Begun afresh it is once only.
            if request.search is not None and "trials" in job.metrics:
                plan = request.search.model_copy(update={"fresh": False})
                request = request.model_copy(update={"search": plan})
            return self._start(request, folder / CHECKPOINT_DIR)

    def _start(self, request: JobRequest, checkpoint: Path | None = None) -> Job:
        if not can_train():
            raise Conflict(
                "This installation serves but cannot train: install imgcls[train] beside it."
            )
        job_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
        folder = self.root / job_id
        folder.mkdir()
        moved = checkpoint is not None and checkpoint.is_dir()
        try:
            if checkpoint is not None and moved:
                checkpoint.rename(folder / CHECKPOINT_DIR)
            process = self._launch(folder, request)
        except OSError:  # a full disk, say: a job that is refused leaves nothing
            if checkpoint is not None and moved:
                (folder / CHECKPOINT_DIR).rename(checkpoint)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        threading.Thread(target=_settle, args=(process, folder), daemon=True).start()
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """Raises `JobNotFound`, or `Conflict` where the job's request is damaged."""
        folder = self._folder(job_id)
        try:
            request = JobRequest.model_validate_json((folder / "request.json").read_bytes())
        except ValidationError as err:
            raise Conflict(
                f"The job {job_id} cannot be read: its request.json is damaged."
            ) from err
        alive = _is_locked(folder / "lock")  # before the result: a job may end in between
        result = _read_result(folder)
        last = _last_event(folder) or JobEvent(stage="queued", time=_created(job_id))
        job = Job(
            id=job_id,
            name=request.name,
            dataset=request.dataset,
            recipe=str(request.recipe.get("preset") or request.recipe.get("kind")),
            state="running" if last.started_at else "queued",
            stage=last.stage,
            progress=last.progress,
            epoch=last.epoch,
            epochs=last.epochs,
            metrics=last.metrics,
            created_at=_created(job_id),
            started_at=last.started_at,
        )
        if result is not None:
            return job.model_copy(update=result.model_dump())
        if not alive:
            return job.model_copy(update=_died(folder).model_dump())
        if job.state == "running" and last.progress:
            spent = (last.time - last.stage_began).total_seconds()
            left = spent * (1 - last.progress) / last.progress
            job.eta_seconds = round(
                max(0.0, left - (datetime.now(UTC) - last.time).total_seconds()), 1
            )
        return job

    def all(self) -> list[Job]:
        """All jobs, newest first; what is not a job folder is passed over."""
        jobs = []
        for folder in sorted(self._folders(), reverse=True):
            with contextlib.suppress(JobNotFound, Conflict, OSError):
                jobs.append(self.get(folder.name))
        return jobs

    def follow(self, job_id: str, *, poll: float = _POLL) -> Iterator[Job]:
        """Yield the job whenever it has changed, and last when it is over."""
        return follow(lambda: self.get(job_id), poll)

    def cancel(self, job_id: str) -> Job:
        """Stop a job and wait until its process is gone.

        Raises `JobNotFound`, `JobOver`, or `Conflict` where it is not known which process that is.
        """
        folder = self._folder(job_id)
        if (job := self.get(job_id)).over:
            raise JobOver(f"The job {job_id} is over already: {job.state}.")
        write_atomic(folder / "cancel", "")
        for sign in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + _KILL_AFTER
            with contextlib.suppress(OSError):
                # The lock is still held, so this id is still that process.
                os.killpg(_process_id(folder), sign)
            while time.monotonic() < deadline or self.get(job_id).stage == "registering":
                if not _is_locked(folder / "lock"):
                    return self.get(job_id)
                time.sleep(0.02)
        return self.get(job_id)

    @contextlib.contextmanager
    def without(self, dataset: str) -> Iterator[None]:
        """Let no job begin for the length of the block, in which `dataset` (a whole tag) may go.

        Raises `DatasetInUse` where a job that waits or runs is about it.
        """
        name = dataset.partition(":")[0]
        names = (dataset, name, f"{name}:latest")
        with locked(self.root / "start.lock"):
            busy = next((job for job in self.all() if not job.over and job.dataset in names), None)
            if busy is not None:
                raise DatasetInUse(
                    f"The job {busy.id} uses {dataset}; wait for its end, or cancel it first."
                )
            yield

    def log(self, job_id: str) -> str:
        """The last 16 KiB that the process printed. Raises `JobNotFound`."""
        return _tail(self._folder(job_id) / "log.txt", 16_384)

    def _make_room(self, keep: Path | None = None) -> None:
        """Forget the oldest jobs that are over. Raises `Busy` when too many are not."""
        settings = get_settings()
        over = [folder for folder in sorted(self._folders()) if not _is_locked(folder / "lock")]
        if len(self._folders()) - len(over) >= settings.max_jobs:
            raise Busy(
                f"{settings.max_jobs} jobs wait or run already; cancel one or try again later."
            )
        for folder in over[: max(0, len(over) - settings.keep_jobs)]:
            if folder != keep:
                shutil.rmtree(folder, ignore_errors=True)
        for folder in over[:-_KEEP_CHECKPOINTS]:
            if folder != keep:
                shutil.rmtree(folder / CHECKPOINT_DIR, ignore_errors=True)

    def _launch(self, folder: Path, request: JobRequest) -> "subprocess.Popen[bytes]":
        with (folder / "lock").open("wb") as lock, (folder / "log.txt").open("wb") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            write_atomic(folder / "request.json", request.model_dump_json())
            process = subprocess.Popen(
                [*self._trainer, "--job", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock.fileno()],
                start_new_session=True,
                env=os.environ
                | {"PYTHONPATH": python_path(), "IMGCLS_HOME": str(self.root.parent)},
            )
            try:
                write_atomic(folder / "process.json", _Process(pid=process.pid).model_dump_json())
            except OSError:
                process.kill()
                process.wait()
                raise
        return process

    def _folders(self) -> list[Path]:
        return [entry for entry in self.root.glob("*") if (entry / "request.json").is_file()]

    def _folder(self, job_id: str) -> Path:
        folder = self.root / job_id
        if not _JOB_ID.fullmatch(job_id) or not (folder / "request.json").is_file():
            raise JobNotFound(f"There is no job {job_id[:80]!r}; list the jobs first.")
        return folder


class JobWriter:
    """The training process's end of a job folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.request = JobRequest.model_validate_json((folder / "request.json").read_bytes())
        self._turn: IO[bytes] | None = None
        self._last: JobEvent | None = None

    def wait_turn(self) -> None:
        """Return when every older job is over: one training at a time, first come first served."""
        self.emit("queued")
        self._turn = (self.folder.parent / "turn.lock").open("ab")
        while True:
            older = (f for f in self.folder.parent.glob("*") if f.name < self.folder.name)
            waiting = any(_is_locked(f / "lock") and _read_result(f) is None for f in older)
            if not waiting:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(self._turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
            time.sleep(_POLL)

    def emit(self, stage: str, **told: Unpack[Told]) -> None:
        """Add an event; what is left out stays as it was in the last one."""
        epoch, epochs, metrics = told.get("epoch"), told.get("epochs"), told.get("metrics")
        event = JobEvent(stage=stage, progress=told.get("progress"), message=told.get("message"))
        last = self._last
        event.started_at = last.started_at if last else None
        if event.started_at is None and stage != "queued":
            event.started_at = event.time
        if last and last.stage == stage:
            event.stage_began = last.stage_began
        if spent := told.get("spent"):
            event.stage_began = min(event.stage_began, event.time - timedelta(seconds=spent))
        event.epoch = epoch if epoch is not None or last is None else last.epoch
        event.epochs = epochs if epochs is not None or last is None else last.epochs
        event.metrics = (last.metrics if last else {}) | (metrics or {})
        self._last = event
        with (self.folder / "events.jsonl").open("a") as file:
            file.write(event.model_dump_json(exclude_none=True) + "\n")

    @property
    def checkpoint_dir(self) -> Path:
        """Where the training saves its epochs: what `Jobs.resume` hands on to the next job."""
        return self.folder / CHECKPOINT_DIR

    def succeed(self, tag: str) -> None:
        _write_result(self.folder, JobResult(state="succeeded", tag=tag))
        shutil.rmtree(self.checkpoint_dir, ignore_errors=True)

    def fail(self, code: str, reason: str) -> None:
        _write_result(self.folder, JobResult(state="failed", code=code, reason=reason))


def can_train() -> bool:
    """Whether the training package and its torch are installed; neither is imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("training", "torch"))


def python_path() -> str:
    """Where the child finds `training`, wherever this process was started (a bento included)."""
    spec = importlib.util.find_spec("training")
    found = list(spec.submodule_search_locations or []) if spec else []
    paths = [str(Path(place).resolve().parent) for place in found[:1]]
    if inherited := os.environ.get("PYTHONPATH"):
        paths.append(inherited)
    return os.pathsep.join(paths)


def _process_id(folder: Path) -> int:
    """Raises `OSError` where it is not written yet, `Conflict` where it is damaged."""
    written = (folder / "process.json").read_bytes()
    try:
        return _Process.model_validate_json(written).pid
    except ValidationError as err:
        raise Conflict(
            f"The process.json of job {folder.name} is damaged: end the process by hand."
        ) from err


def _settle(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Reap the process; where it left no result, say how it ended."""
    code = process.wait()
    with contextlib.suppress(OSError):
        if _read_result(folder) is None:
            _write_result(folder, _died(folder, code))


def _died(folder: Path, exit_code: int | None = None) -> JobResult:
    if (folder / "cancel").exists():
        return JobResult(state="cancelled", reason="Cancelled on request.")
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        how = f"was killed by {name}" + (
            " (by hand, or out of memory)" if name == "SIGKILL" else ""
        )
    else:
        how = "ended" + (f" with exit code {exit_code}" if exit_code else "")
    last = _tail(folder / "log.txt", 2_000).strip().rsplit("\n", 1)[-1][:300]
    reason = f"The training process {how} before it wrote a result."
    finished = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    with contextlib.suppress(OSError):
        finished = datetime.fromtimestamp((folder / "events.jsonl").stat().st_mtime, UTC)
    return JobResult(
        state="failed",
        code="killed",
        reason=reason + (f" Its log ends: {last}" if last else ""),
        finished_at=datetime.now(UTC) if exit_code is not None else finished,
    )


def _write_result(folder: Path, result: JobResult) -> None:
    """The first result stands: a link, unlike a rename, refuses to replace."""
    temporary = folder / f".result-{secrets.token_hex(4)}"
    write_atomic(temporary, result.model_dump_json())
    with contextlib.suppress(FileExistsError):
        os.link(temporary, folder / "result.json")
    temporary.unlink()


def _read_result(folder: Path) -> JobResult | None:
    try:
        return JobResult.model_validate_json((folder / "result.json").read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        return JobResult(state="failed", code="internal", reason="result.json is damaged.")


def _last_event(folder: Path) -> JobEvent | None:
    for line in reversed(_tail(folder / "events.jsonl", 65_536).splitlines()):
        with contextlib.suppress(ValidationError):  # the last line may be cut by a kill
            return JobEvent.model_validate_json(line)
    return None


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def _created(job_id: str) -> datetime:
    try:
        return datetime.strptime(job_id[:22], "%Y%m%d-%H%M%S-%f").replace(tzinfo=UTC)
    except ValueError:
        raise JobNotFound(f"There is no job {job_id[:80]!r}; list the jobs first.") from None


def _tail(path: Path, size: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - size))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
