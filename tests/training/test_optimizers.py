"""Optimizers and schedules: what learns how fast, and when."""

import pytest
import torch

from imgcls.recipes.types import Optimizer, Schedule
from training import optimizers
from training.lr_finder import find_lr
from training.networks import cnn


def rates(config: Schedule, steps: int = 100, per_epoch: int = 10) -> list[float]:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2.0)
    schedule = optimizers.schedule(optimizer, config, steps=steps, per_epoch=per_epoch)
    seen = []
    for _ in range(steps):
        seen.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return seen


def test_every_schedule_moves_as_it_says() -> None:
    cosine = rates(Schedule(name="cosine", warm_up=0.1))
    assert max(cosine) == cosine[10] == pytest.approx(2)
    assert cosine[:11] == sorted(cosine[:11])
    assert cosine[10:] == sorted(cosine[10:], reverse=True)
    assert cosine[-1] < 0.01
    assert cosine[55] == pytest.approx(1)
    assert rates(Schedule(name="constant", warm_up=0)) == [2.0] * 100
    by_epoch = rates(Schedule(name="exponential", warm_up=0, decay=0.5))
    assert by_epoch[9:31:10] == [2.0, 1.0, 0.5]
    steps = rates(Schedule(name="steps", warm_up=0, decay=0.1, at=(0.5, 0.8)))
    assert [steps[n] for n in (49, 50, 79, 80)] == pytest.approx([2, 0.2, 0.2, 0.02])
    cycle = rates(Schedule(name="one-cycle", warm_up=0.3))
    assert cycle.index(max(cycle)) == pytest.approx(30, abs=1)
    assert cycle[0] == pytest.approx(2 / 25)
    assert cycle[-1] < 0.01


@pytest.mark.parametrize("name", ["one-cycle", "cosine", "exponential", "steps", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3, 19])
@pytest.mark.parametrize("warm_up", [0, 0.05, 0.9])
def test_short_runs_have_schedules_too(name: str, steps: int, warm_up: float) -> None:
    config = Schedule.model_validate({"name": name, "warm_up": warm_up})
    assert all(0 < lr <= 2.0001 for lr in rates(config, steps, 1))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_body_and_head_learn_at_their_own_rates_and_biases_do_not_decay(name: str) -> None:
    network = cnn(8, 2, width=0.5, dense=8, dropout=0)
    config = Optimizer.model_validate({"name": name, "weight_decay": 0.5})
    optimizer = optimizers.optimizer(network, config, 0.1, body_lr=0.01)
    of = {p: group for group in optimizer.param_groups for p in group["params"]}
    assert len(of) == len(list(network.parameters()))
    assert {of[p]["lr"] for p in network.head.parameters()} == {0.1}
    assert {of[p]["lr"] for p in network.body.parameters()} == {0.001}
    assert of[network.head.weight]["weight_decay"] == 0.5
    assert of[network.head.bias]["weight_decay"] == 0


def test_the_finder_stays_below_the_rate_at_which_training_explodes() -> None:
    # (a x - 1)^2 with a = 10 is minimised at any rate below 2 / (2 a^2) = 0.01.
    x = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([x], lr=1.0)

    def step() -> float:
        loss = (10 * x - 1).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    assert 1e-4 < find_lr(optimizer, step) < 0.01
