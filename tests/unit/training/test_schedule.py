import numpy as np
import pytest
import torch
from small_training import recipe

from worker.training.recipe import Phase
from worker.training.schedule import Plateau, factor, stretches


def test_warm_up_is_linear_and_ends() -> None:
    wanted = recipe(schedule="constant", warmup_from=0.001)
    values = [factor(wanted, i, 100, 10, 1.0) for i in range(12)]
    assert values[0] == pytest.approx(0.001)
    assert values[5] == pytest.approx(0.001 + 0.999 / 2)
    assert values[10:] == [1.0, 1.0]


def test_warm_up_equals_torchs_linear_rate() -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.LinearLR(optimiser, start_factor=0.001, total_iters=7)
    wanted = recipe(schedule="constant", warmup_from=0.001)
    for i in range(12):
        assert optimiser.param_groups[0]["lr"] == pytest.approx(factor(wanted, i, 100, 7, 1.0))
        optimiser.step()
        theirs.step()


def test_steps_and_cosine() -> None:
    steps = recipe(schedule="steps", steps=(2 / 3, 8 / 9), gamma=0.1)
    values = [factor(steps, i, 90, 0, 1.0) for i in (0, 59, 60, 79, 80, 89)]
    assert values == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = recipe(schedule="cosine")
    assert [factor(cosine, i, 100, 0, 1.0) for i in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert factor(cosine, 40, None, 0, 1.0) == 1.0  # a budget whose pace is not known yet


def test_a_plateau_is_torchs() -> None:
    rng = np.random.default_rng(0)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=0.1, patience=3)
    ours = Plateau()
    for value in np.concatenate([[0.0, 0.0], np.round(rng.random(60), 2) ** 2]).tolist():
        theirs.step(value)
        ours.seen(value, gamma=0.1, patience=3)
        # torch has no rate below 1e-8 of change
        assert ours.factor == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-8)
    assert ours.factor < 1e-3


def test_phases_share_the_iterations() -> None:
    phases = (Phase(10, 1e-4), Phase(20, 1e-5))
    assert [(s.first, s.length) for s in stretches(phases, 300)] == [(0, 100), (100, 200)]
    assert [(s.number, s.first, s.length) for s in stretches(phases, 1)] == [(1, 0, 1)]
