"""The rate at every iteration, as a function of the iteration and of what validation said."""

from __future__ import annotations

import math
from dataclasses import dataclass

from worker.training.recipe import Phase, Recipe

# torch.optim's ReduceLROnPlateau: better means better by this share.
LEAST_GAIN = 1e-4


@dataclass(frozen=True)
class Stretch:
    """A phase in iterations: from `first` on, `length` of them."""

    number: int
    phase: Phase
    first: int
    length: int


def stretches(phases: tuple[Phase, ...], iterations: int) -> tuple[Stretch, ...]:
    """The phases over `iterations` in all, in proportion to their epochs; one without an iteration is left out."""
    total = sum(phase.epochs for phase in phases)
    ends, so_far = [], 0.0
    for phase in phases:
        so_far += phase.epochs
        ends.append(round(iterations * so_far / total))
    starts = [0, *ends[:-1]]
    return tuple(
        Stretch(number, phase, start, end - start)
        for number, (phase, start, end) in enumerate(zip(phases, starts, ends, strict=True))
        if end > start
    )


def factor(recipe: Recipe, iteration: int, length: int | None, warmup: int, plateau: float) -> float:
    """What the phase's rate is multiplied by at its `iteration`, of `length` (None: not known yet), from 0.

    Warm-up is linear from `warmup_from` over `warmup` iterations and multiplies the schedule.
    """
    value = 1.0
    if iteration < warmup:
        value = recipe.warmup_from + (1 - recipe.warmup_from) * iteration / warmup
    done = iteration / length if length else 0.0
    if recipe.schedule == "steps":
        return value * recipe.gamma ** sum(done >= step for step in recipe.steps)
    if recipe.schedule == "cosine":
        return value * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if recipe.schedule == "plateau":
        return value * plateau
    return value


@dataclass
class Plateau:
    """torch.optim's ReduceLROnPlateau with mode max and a relative threshold, as data."""

    factor: float = 1.0
    best: float = -math.inf
    bad: int = 0

    def seen(self, value: float, *, gamma: float, patience: int) -> None:
        # Relative to a best of 0 any gain counts.
        if value > self.best + abs(self.best if math.isfinite(self.best) else 0.0) * LEAST_GAIN:
            self.best, self.bad = value, 0
            return
        self.bad += 1
        if self.bad > patience:
            self.factor, self.bad = self.factor * gamma, 0
