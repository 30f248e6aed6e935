"""From facts to rows of numbers, and from rows to covariances: one block for each source."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from worker.ranking.belief.learned import Spread
from worker.ranking.belief.records import SCORES, Facts, TargetFacts

Pair = tuple[Facts, TargetFacts]
FACTS_OF_TARGET = ("log images", "log classes", "log objects")
FACTS_OF_CANDIDATE = ("log parameters", "detector")
TOO_SMALL = "too small"
# An object narrower than two cells of a map need not cover any of them whole.
CELLS = 2


def target_numbers(target: TargetFacts) -> dict[str, float]:
    """Facts that are known, not yet standardised."""
    known = {
        "log images": target.images,
        "log classes": target.classes,
        "log objects": target.objects,
    }
    return {name: math.log(value) for name, value in known.items() if value}


def candidate_numbers(candidate: Facts) -> dict[str, float]:
    found = {"detector": float(candidate.detector)}
    if candidate.parameters:
        found["log parameters"] = math.log(candidate.parameters)
    return found


def pair_numbers(candidate: Facts, target: TargetFacts) -> dict[str, float]:
    """The share of the target's objects that are smaller than `CELLS` cells of the finest map that the candidate's head reads.

    Objects below it are lost to a detector whatever its weights know: it is why one that reads no finer map than stride 16
    leads on large objects and fails on small ones.
    """
    if not (candidate.stride and target.sides and target.pixels):
        return {}
    at = np.linspace(0, 1, len(target.sides))
    side = CELLS * candidate.stride / target.pixels
    return {TOO_SMALL: float(np.interp(side, target.sides, at, left=0.0, right=1.0))}


def blocks(
    rows: Sequence[Pair], columns: Sequence[Pair], spread: Spread, facts: Mapping[str, tuple[float, float]]
) -> dict[str, np.ndarray]:
    """{source: covariance (rows, columns) of sqrt(mAP), float64}, without the noise of a training."""

    def of(pick: str) -> tuple[np.ndarray, np.ndarray]:
        makers = {
            "target": lambda pair: _standard(target_numbers(pair[1]), FACTS_OF_TARGET, facts),
            "candidate": lambda pair: _standard(candidate_numbers(pair[0]), FACTS_OF_CANDIDATE, facts),
            "object_sizes": lambda pair: _standard(pair_numbers(*pair), (TOO_SMALL,), facts),
            "scores": lambda pair: [pair[0].scores.get(name, 0.0) for name in SCORES],
        }
        make = makers[pick]
        return np.array([make(pair) for pair in rows]), np.array([make(pair) for pair in columns])

    def linear(pick: str, sd: float) -> np.ndarray:
        left, right = of(pick)
        return sd**2 * left @ right.T

    def same(key: str, sd: float) -> np.ndarray:
        keys = {
            "target": lambda pair: pair[1].key,
            "architecture": lambda pair: pair[0].architecture,
            "candidate": lambda pair: pair[0].key,
            "pair": lambda pair: (pair[0].key, pair[1].key),
        }
        get = keys[key]
        numbers: dict[object, int] = {}
        left = np.array([numbers.setdefault(get(pair), len(numbers)) for pair in rows])
        right = np.array([numbers.setdefault(get(pair), len(numbers)) for pair in columns])
        return sd**2 * (left[:, None] == right[None, :])

    return {
        "prior": np.full((len(rows), len(columns)), spread.mean**2),
        "target": linear("target", spread.target_facts) + same("target", spread.target),
        "candidate": linear("candidate", spread.candidate_facts)
        + same("architecture", spread.architecture)
        + same("candidate", spread.candidate),
        "object_sizes": linear("object_sizes", spread.object_sizes),
        "scores": linear("scores", spread.scores),
        "pair": same("pair", spread.pair),
    }


def total(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """The sum of arrays of one shape."""
    return np.sum(list(parts.values()), axis=0)


def standardised(pool: Sequence[Mapping[tuple[str, str], float]]) -> list[dict[tuple[str, str], float]]:
    """Scores of a pool with mean 0 and standard deviation 1 over the candidates that have them; who has none gets none.

    Values that are all equal say nothing of an order, and become 0.
    """
    found: list[dict[tuple[str, str], float]] = [{} for _ in pool]
    for name in SCORES:
        having = [(place, own[name]) for place, own in enumerate(pool) if name in own]
        if len(having) < 2:
            continue
        values = np.array([value for _, value in having])
        sd = float(values.std(ddof=1))
        for place, value in having:
            found[place][name] = (value - float(values.mean())) / sd if sd > 1e-12 else 0.0
    return found


def _standard(
    numbers: Mapping[str, float], names: Sequence[str], facts: Mapping[str, tuple[float, float]]
) -> list[float]:
    """In standard deviations from the mean of the studies, no farther than 3; what is not known is the mean."""
    found = []
    for name in names:
        mean, sd = facts.get(name, (0.0, 0.0))
        found.append(
            float(np.clip((numbers[name] - mean) / sd, -3, 3)) if name in numbers and sd > 0 else 0.0
        )
    return found
