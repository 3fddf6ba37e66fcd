"""A real job, killed at half by a real SIGKILL, and started again."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch

from imgcls.jobs import CHECKPOINT_DIR, JobRequest, Jobs
from imgcls.recipes import load_recipe
from imgcls.registry import Registry
from imgcls.schemas import Job
from training import train
from training.checkpoint import CHECKPOINT_FILE

EPOCHS = 14
RECIPE = load_recipe(
    "cnn",
    {
        "epochs": EPOCHS,
        "batch_size": 8,
        "network": {"width": 0.5, "dense": 16},
        "early_stop.patience": 0,
    },
)


def wait(jobs: Jobs, job_id: str, ready: Callable[[Job], bool]) -> Job:
    deadline = time.monotonic() + 120
    while not ready(job := jobs.get(job_id)):
        assert time.monotonic() < deadline, job
        time.sleep(0.01)
    return job


def test_a_job_killed_at_half_and_resumed_ends_with_the_figures_of_one_that_was_not(
    shapes: Callable[..., Path], registry: Registry
) -> None:
    undisturbed = train(shapes(), RECIPE, name="shapes", registry=registry)
    jobs = Jobs()
    request = JobRequest(
        dataset=str(shapes()), recipe=RECIPE.model_dump(mode="json"), name="shapes"
    )
    first = jobs.start(request)
    folder = jobs.root / first.id
    wait(jobs, first.id, lambda job: job.over or (job.epoch or 0) >= EPOCHS // 2)
    os.kill(json.loads((folder / "process.json").read_bytes())["pid"], signal.SIGKILL)
    died = wait(jobs, first.id, lambda job: job.over)
    assert (died.state, died.code) == ("failed", "killed")
    checkpoint = folder / CHECKPOINT_DIR / CHECKPOINT_FILE
    saved = torch.load(checkpoint, weights_only=True)["state"]["history"]

    second = jobs.resume(first.id)
    assert second.id != first.id
    ended = wait(jobs, second.id, lambda job: job.over)
    assert ended.state == "succeeded", ended
    assert ended.tag is not None
    card = registry.get(ended.tag)
    assert card.metrics == undisturbed.metrics
    assert card.parity == undisturbed.parity
    figures = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in made.history]
        for made in (card, undisturbed)
    ]
    assert figures[0] == figures[1]
    assert len(card.history) == EPOCHS
    # What the killed job had done was not done again: even the seconds are its own.
    assert card.history[: len(saved)] == saved
    assert EPOCHS // 2 - 1 <= len(saved) < EPOCHS
    assert not (jobs.root / second.id / CHECKPOINT_DIR).exists()
