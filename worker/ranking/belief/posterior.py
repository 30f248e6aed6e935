"""The belief about a pool of candidates on one target: everything that was observed, in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtri

from worker.ranking.belief.design import Pair, blocks, candidate_numbers, target_numbers, total
from worker.ranking.belief.learned import Curve, Learned
from worker.ranking.belief.records import SOURCES, Belief, Believed, Evidence, Facts, TargetFacts

LEVEL = 0.8
DRAWS = 20_000
JITTER = 1e-9


def believe(
    candidates: Sequence[Facts],
    target: TargetFacts,
    own: Sequence[Evidence] = (),
    *,
    learned: Learned,
    level: float = LEVEL,
    seed: int = 0,
) -> Belief:
    """What each candidate will reach on the target. own: evidence beside that of the studies; seed: of the draws for the
    chance of being best, which is of the mean over trainings, while the interval is of one training.

    Observations of a share of the steps that no curve was learned for are left out.
    """
    found = joint(candidates, target, own, learned=learned)
    used, mean, covariance = found.used, found.mean, found.covariance
    chances = _chances(mean, covariance, seed)
    quantile = ndtri(0.5 + level / 2)
    sd = np.sqrt(np.clip(np.diag(covariance), 0, None) + learned.spread.seed**2)
    low, high = _map(mean - quantile * sd), _map(mean + quantile * sd)
    # of the square of a Gaussian, which is above the square of its mean
    expected = np.clip(np.clip(mean, 0, None) ** 2 + sd**2, low, high)
    architectures = {each.candidate.architecture for each in used}
    return Belief(
        level,
        tuple(
            Believed(
                candidate.key,
                float(expected[i]),
                float(low[i]),
                float(high[i]),
                float(chances[i]),
                {source: float(found.parts[source][i]) for source in SOURCES},
                candidate.architecture in architectures,
                _far(candidate, architectures, learned),
            )
            for i, candidate in enumerate(candidates)
        ),
        tuple(dict.fromkeys(each.observed.id for each in used if each.observed.own and each.observed.id)),
        _warnings(target, used, learned),
    )


@dataclass(frozen=True)
class Joint:
    """Of sqrt(mAP), the mean over trainings, of n candidates on one target: mean (n,) and covariance (n, n) float64; parts:
    what each of SOURCES adds to the mean, (n,) each; used: the evidence that it stands on."""

    mean: np.ndarray
    covariance: np.ndarray
    parts: Mapping[str, np.ndarray]
    used: tuple[Evidence, ...]


def joint(
    candidates: Sequence[Facts], target: TargetFacts, own: Sequence[Evidence] = (), *, learned: Learned
) -> Joint:
    """All candidates of a pool together, with what `believe` leaves out where it speaks of each: their covariances."""
    known = [*learned.evidence, *own]
    readings = [reading(each, learned.curves) for each in known]
    used = [(each, found) for each, found in zip(known, readings, strict=True) if found is not None]
    asked: list[Pair] = [(candidate, target) for candidate in candidates]
    pairs: list[Pair] = [(each.candidate, each.target) for each, _ in used]
    covariance = total(blocks(asked, asked, learned.spread, learned.facts))
    means = {source: np.zeros(len(asked)) for source in SOURCES}
    means["prior"] = np.full(len(asked), learned.mean)
    means["candidate"] += _less(candidates, learned)
    if used:
        noise = _noise([found for _, found in used], [pair[1].key for pair in pairs], learned)
        seen = total(blocks(pairs, pairs, learned.spread, learned.facts)) + noise
        factor = cho_factor(seen + JITTER * np.eye(len(seen)), lower=True)
        values = np.array([found.value for _, found in used]) - _less([pair[0] for pair in pairs], learned)
        off = cho_solve(factor, values - learned.mean)
        crossed = blocks(asked, pairs, learned.spread, learned.facts)
        for source, block in crossed.items():
            means[source] = means[source] + block @ off
        between = total(crossed)
        covariance = covariance - between @ cho_solve(factor, between.T)
    return Joint(total(means), covariance, means, tuple(each for each, _ in used))


def _less(candidates: Sequence[Facts], learned: Learned) -> np.ndarray:
    """(n,): what those that were never trained have less."""
    return np.array([learned.untrained * each.untrained for each in candidates])


@dataclass(frozen=True)
class Reading:
    """An observation on the scale of sqrt(test mAP): value, its variance, and that which all of its target share."""

    value: float
    variance: float = 0.0
    shared: float = 0.0


def reading(each: Evidence, curves: Sequence[Curve]) -> Reading | None:
    """None for a share of the steps before the first that a curve was learned for."""
    return reading_at(each.observed.map, each.observed.share, curves)


def reading_at(map: float, share: float, curves: Sequence[Curve]) -> Reading | None:
    """Of the mAP that a training shows at a share of its steps; see Observed."""
    root = float(np.sqrt(max(map, 0.0)))
    if share >= 1:
        return Reading(root)
    curve = curve_at(share, curves)
    if curve is None:
        return None
    return Reading(
        (root - curve.offset) / curve.slope,
        (curve.noise / curve.slope) ** 2,
        (curve.target / curve.slope) ** 2,
    )


def curve_at(share: float, curves: Sequence[Curve]) -> Curve | None:
    """The curve of the last share that is not after `share`: what was seen later is held to be no better."""
    before = [curve for curve in curves if curve.share <= share + 1e-9 and curve.slope > 0]
    return max(before, key=lambda curve: curve.share) if before else None


def _noise(readings: Sequence[Reading], targets: Sequence[str], learned: Learned) -> np.ndarray:
    """(n, n): of each training its own, and of validation images what all candidates of a target share."""
    # validation mAP of a training comes from weights that have the noise of that training
    own = np.array([learned.spread.seed**2 + each.variance for each in readings])
    shared = np.sqrt([each.shared for each in readings])
    numbers = {target: number for number, target in enumerate(dict.fromkeys(targets))}
    keys = np.array([numbers[target] for target in targets])
    return np.diag(own) + np.outer(shared, shared) * (keys[:, None] == keys[None, :])


def _chances(mean: np.ndarray, covariance: np.ndarray, seed: int) -> np.ndarray:
    if not len(mean):
        return mean
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    root = vectors * np.sqrt(np.clip(values, 0, None))
    draws = mean + np.random.default_rng(seed).standard_normal((DRAWS, len(mean))) @ root.T
    return np.bincount(draws.argmax(axis=1), minlength=len(mean)) / DRAWS


def _map(root: np.ndarray) -> np.ndarray:
    return np.clip(root, 0, 1) ** 2


def _far(candidate: Facts, architectures: set[str], learned: Learned) -> tuple[str, ...]:
    found = []
    if candidate.architecture not in architectures:
        found.append(f"nothing was learned from its architecture, {candidate.architecture}")
    return (*found, *_outside(candidate_numbers(candidate), learned))


def _warnings(target: TargetFacts, used: Sequence[Evidence], learned: Learned) -> tuple[str, ...]:
    found = list(_outside(target_numbers(target), learned))
    if not any(each.target.key == target.key for each in used):
        found.append(
            f"no fine-tuning of this dataset is known, so how hard it is is a guess; meant is {learned.budget}"
        )
    return tuple(found)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 1e4 else f"{value:.4g}"


def _outside(numbers: dict[str, float], learned: Learned) -> list[str]:
    """Facts farther from those of the studies than any that they had."""
    return [
        f"far from what this was learned on: {name.removeprefix('log ')} of {_plain(float(np.exp(value)))}"
        for name, value in numbers.items()
        if name.startswith("log ") and name in learned.facts
        for mean, sd in [learned.facts[name]]
        if sd > 0 and abs(value - mean) > 2.5 * sd
    ]
