"""Jobs: progress, queue, cancel, and what is said of a process that died."""

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from imgcls.errors import Busy, Conflict, JobNotFound, JobOver
from imgcls.jobs import CHECKPOINT_DIR, JobRequest, Jobs, JobWriter, _is_locked
from imgcls.schemas import Job
from imgcls.searches import SearchPlan
from imgcls.settings import get_settings

TRAINERS = Path(__file__).parent / "trainers"


def jobs_with(trainer: str) -> Jobs:
    return Jobs(trainer=(sys.executable, str(TRAINERS / f"{trainer}.py")))


def request(name: str = "pets") -> JobRequest:
    return JobRequest(dataset="pets:0123456789ab", recipe={"kind": "cnn"}, name=name)


def until(jobs: Jobs, job: Job, state: str, seconds: float = 20) -> Job:
    deadline = time.monotonic() + seconds
    while (now := jobs.get(job.id)).state != state:
        assert time.monotonic() < deadline, now
        time.sleep(0.05)
    return now


def test_a_job_reports_progress_and_its_model() -> None:
    jobs = jobs_with("obedient")
    started = jobs.start(request())
    assert started.state == "queued"
    seen = list(jobs.follow(started.id))
    assert {job.epoch for job in seen} >= {1, 2}
    last = seen[-1]
    assert (last.state, last.tag, last.recipe) == ("succeeded", "pets:1", "cnn")
    assert last.metrics == {"val_loss": 0.5}
    assert last.finished_at is not None
    assert jobs.all() == [last]


def test_jobs_run_one_at_a_time_in_order() -> None:
    jobs = jobs_with("obedient")
    started = [jobs.start(request(f"m{n}")) for n in range(3)]
    finished = [until(jobs, job, "succeeded") for job in started]
    for before, after in itertools.pairwise(finished):
        assert before.finished_at is not None
        assert after.started_at is not None
        assert before.finished_at <= after.started_at


def test_a_killed_trainer_is_reported_with_its_signal() -> None:
    jobs = jobs_with("endless")
    job = until(jobs, jobs.start(request()), "running")
    pid = json.loads((jobs.root / job.id / "process.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    failed = until(jobs, job, "failed")
    assert failed.code == "killed"
    deadline = time.monotonic() + 5
    while "SIGKILL" not in (jobs.get(job.id).reason or ""):
        assert time.monotonic() < deadline, jobs.get(job.id)
        time.sleep(0.05)


def test_a_crash_shows_the_last_line_of_the_log() -> None:
    jobs = jobs_with("crashing")
    job = jobs.start(request())
    failed = until(jobs, job, "failed")
    deadline = time.monotonic() + 5
    while "no memory for the tensors" not in (failed.reason or ""):
        assert time.monotonic() < deadline, failed
        failed = jobs.get(job.id)
    assert "RuntimeError" in jobs.log(job.id)


def test_a_job_whose_server_is_gone_is_still_told_apart(home: Path) -> None:
    """Nobody waits for the process: the free lock alone says that it has died."""
    jobs = jobs_with("endless")
    job = until(jobs, jobs.start(request()), "running")
    folder = jobs.root / job.id
    pid = json.loads((folder / "process.json").read_text())["pid"]
    assert Jobs().get(job.id).state == "running"
    os.kill(pid, signal.SIGKILL)
    until(jobs, job, "failed")
    (folder / "result.json").unlink(missing_ok=True)
    failed = Jobs().get(job.id)
    assert failed.state == "failed"
    assert failed.reason is not None


@pytest.mark.parametrize("trainer", ["endless", "deaf"])
def test_cancel_stops_the_process(trainer: str) -> None:
    jobs = jobs_with(trainer)
    job = until(jobs, jobs.start(request()), "running")
    pid = json.loads((jobs.root / job.id / "process.json").read_text())["pid"]
    assert jobs.cancel(job.id).state == "cancelled"
    time.sleep(0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(JobOver):
        jobs.cancel(job.id)


def test_a_waiting_job_can_be_cancelled_and_the_next_one_runs() -> None:
    jobs = jobs_with("endless")
    first = until(jobs, jobs.start(request()), "running")
    second = jobs.start(request())
    third = jobs_with("obedient").start(request())
    time.sleep(0.5)
    assert jobs.get(second.id).state == "queued"
    assert jobs.cancel(second.id).state == "cancelled"
    jobs.cancel(first.id)
    until(jobs, third, "succeeded")


def test_too_many_jobs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGCLS_MAX_JOBS", "2")
    get_settings.cache_clear()
    jobs = jobs_with("endless")
    started = [jobs.start(request()) for _ in range(2)]
    with pytest.raises(Busy):
        jobs.start(request())
    for job in started:
        jobs.cancel(job.id)
    jobs.cancel(jobs.start(request()).id)


def test_what_came_to_no_model_goes_on_as_a_new_job_with_its_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = jobs_with("endless")
    first = until(jobs, jobs.start(request()), "running")
    with pytest.raises(Conflict, match="still runs"):
        jobs.resume(first.id)
    (jobs.root / first.id / CHECKPOINT_DIR).mkdir()
    (jobs.root / first.id / CHECKPOINT_DIR / "epoch").write_text("3")
    jobs.cancel(first.id)
    monkeypatch.setenv("IMGCLS_KEEP_JOBS", "0")  # room is made, but not of what is needed
    get_settings.cache_clear()
    second = jobs_with("obedient").resume(first.id)
    assert (second.name, second.dataset) == (first.name, first.dataset)
    assert (jobs.root / second.id / CHECKPOINT_DIR / "epoch").read_text() == "3"
    assert not (jobs.root / first.id / CHECKPOINT_DIR).exists()
    until(jobs, second, "succeeded")
    deadline = time.monotonic() + 5
    while (jobs.root / second.id / CHECKPOINT_DIR).exists():  # of no use any more
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(JobOver, match="pets:1"):
        jobs.resume(second.id)
    with pytest.raises(JobNotFound):
        jobs.resume("nothing")


def test_the_time_left_of_a_resumed_training_is_at_the_speed_of_all_its_epochs() -> None:
    jobs = jobs_with("halfway")
    job = until(jobs, jobs.start(request()), "running")
    deadline = time.monotonic() + 20
    while (now := jobs.get(job.id)).epoch != 2:
        assert time.monotonic() < deadline, now
        time.sleep(0.05)
    assert now.progress == 0.5
    assert now.eta_seconds == pytest.approx(100, abs=15)
    jobs.cancel(job.id)


def test_a_search_that_was_begun_afresh_does_not_forget_again_when_it_goes_on() -> None:
    jobs = jobs_with("endless")
    plan = SearchPlan(budget=60, fresh=True)
    fresh = request().model_copy(update={"search": plan})

    def resumed(job: Job) -> Job:
        jobs.cancel(job.id)
        return jobs.resume(job.id)

    def asked(job: Job) -> bool:
        told = json.loads((jobs.root / job.id / "request.json").read_text())
        return bool(told["search"]["fresh"])

    first = until(jobs, jobs.start(fresh), "running")
    second = until(jobs, resumed(first), "running")
    assert asked(second)  # it had not begun to search
    jobs.cancel(second.id)
    JobWriter(jobs.root / second.id).emit("searching", metrics={"trials": 3})
    third = jobs.resume(second.id)
    assert not asked(third)
    jobs.cancel(third.id)


@pytest.mark.parametrize("job_id", ["", "..", "../jobs", "nothing", "a/b", "*"])
def test_unknown_jobs_are_not_found(job_id: str) -> None:
    jobs = jobs_with("obedient")
    with pytest.raises(JobNotFound):
        jobs.get(job_id)
    assert jobs.all() == []


def test_only_the_last_event_is_needed_and_a_cut_one_is_passed_over() -> None:
    jobs = jobs_with("obedient")
    job = jobs.start(request())
    until(jobs, job, "succeeded")
    folder = jobs.root / job.id
    *earlier, last = (folder / "events.jsonl").read_text().splitlines()
    assert json.loads(last)["epoch"] == 2
    (folder / "events.jsonl").write_text(f"{last}\n{last[:20]}")
    assert jobs.get(job.id) == jobs.all()[0]
    assert jobs.get(job.id).started_at is not None
    assert jobs.get(job.id).metrics == {"val_loss": 0.5}
    assert earlier


def test_old_jobs_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGCLS_KEEP_JOBS", "1")
    get_settings.cache_clear()
    jobs = jobs_with("obedient")
    ended = [until(jobs, jobs.start(request(f"m{n}")), "succeeded") for n in range(2)]
    while any(_is_locked(jobs.root / job.id / "lock") for job in ended):  # its process still ends
        time.sleep(0.05)
    newest = jobs.start(request("last"))
    assert [job.id for job in jobs.all()] == [newest.id, ended[1].id]
    with pytest.raises(JobNotFound):
        jobs.get(ended[0].id)
    until(jobs, newest, "succeeded")
