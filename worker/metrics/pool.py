"""What only a pool of candidates can tell: pool-relative metrics, the chance of being best, and ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from worker.metrics.arrays import Flags, Floats
from worker.metrics.base import Interval, Score
from worker.metrics.jackknife import jackknife_interval
from worker.metrics.metric import Metric, Pooled
from worker.metrics.registry import lookup


def with_terms(names: Sequence[str]) -> list[str]:
    """The names, with the terms of those that are relative to the pool put before them. Raises UnknownMetric."""
    out: list[str] = []
    for metric in lookup(names):
        out += [*metric.terms, metric.name]
    return list(dict.fromkeys(out))


def pool_scores(
    candidates: Mapping[str, Mapping[str, Score]], names: Sequence[str]
) -> dict[str, dict[str, Score]]:
    """Pool-relative metrics `names` of every candidate, from the candidates' scores of the terms.

    A candidate with an undefined or missing term is left out of the pool and says so. Two candidates with
    values are needed. Where all terms of the pool have intervals over the same groups of images, so has the
    result. Raises UnknownMetric.
    """
    out: dict[str, dict[str, Score]] = {candidate: {} for candidate in candidates}
    for metric in lookup(names):
        if metric.pooled is None:
            continue
        complete = {
            candidate: scores
            for candidate, scores in candidates.items()
            if all(t in scores and scores[t].value is not None for t in metric.terms)
        }
        found = _combined(metric.pooled, complete) if len(complete) > 1 else {}
        for candidate, scores in candidates.items():
            out[candidate][metric.name] = found.get(candidate) or _without(metric, scores)
    return out


def _combined(pooled: Pooled, complete: Mapping[str, Mapping[str, Score]]) -> dict[str, Score]:
    terms = {t: [scores[t] for scores in complete.values()] for t in pooled.terms}
    values = pooled.combine({t: np.array([s.known() for s in column]) for t, column in terms.items()})
    notes = (f"relative to a pool of {len(complete)} candidates",)
    intervals: list[Interval | None] = [None] * len(complete)
    found = {t: [s.interval for s in column if s.interval] for t, column in terms.items()}
    sizes = {(len(each.replicates), each.level) for column in found.values() for each in column}
    if len(sizes) == 1 and all(len(column) == len(complete) for column in found.values()):
        ((groups, level),) = sizes
        rounds = [
            pooled.combine({t: np.array([each.replicates[g] for each in found[t]]) for t in terms})
            for g in range(groups)
        ]
        intervals = [
            jackknife_interval(float(v), column, level)
            for v, column in zip(values, np.array(rounds).T, strict=True)
        ]
    return {
        candidate: Score(float(value), None, 0.0, notes, interval=interval)
        for candidate, value, interval in zip(complete, values, intervals, strict=True)
    }


def _without(metric: Metric, scores: Mapping[str, Score]) -> Score:
    for term in metric.terms:
        if term not in scores:
            return Score(None, f"its term {term} was not scored", 0.0)
        if scores[term].value is None:
            return Score(None, f"its term {term} is undefined: {scores[term].undefined}", 0.0)
    return Score(None, "it is relative to the pool, and no other candidate has a value", 0.0)


@dataclass(frozen=True)
class Comparison:
    """Candidates in order by one metric, best first, and how sure that order is.

    chance_of_best: sums to 1 over the candidates with an interval. group: 1, 2, ... candidates of one group
    cannot be told apart from the group's first. near: for each candidate those whose difference from it is not clear,
    best first; unlike groups, not transitive. left_out: candidates without a value or interval, and why.
    """

    order: tuple[str, ...]
    chance_of_best: Mapping[str, float]
    group: Mapping[str, int]
    near: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, str]


def compare(
    scores: Mapping[str, Score], metric: str, *, level: float = 0.95, draws: int = 20_000, seed: int = 0
) -> Comparison:
    """Compare candidates scored by one metric on the same images with the same groups and seed.

    The candidates' jackknife replicates leave out the same images, so their errors are taken as joint: what
    all candidates share (an odd image) cancels in a difference. Chance of being best: share of draws from the
    joint Student distribution. Raises UnknownMetric, ValueError where the groups differ.
    """
    lookup([metric])
    left_out = {name: reason for name, s in scores.items() if (reason := _not_comparable(s))}
    comparable = {n: s.interval.replicates for n, s in scores.items() if n not in left_out and s.interval}
    names = sorted(comparable, key=lambda n: -scores[n].known())
    if not names:
        return Comparison((), {}, {}, {}, left_out)
    counts = {len(comparable[n]) for n in names}
    if len(counts) > 1:
        raise ValueError(
            f"candidates have different numbers of image groups {sorted(counts)}: score all alike"
        )
    groups = counts.pop()
    values = np.array([scores[n].known() for n in names])
    replicates = np.array([comparable[n] for n in names])
    deviations = np.sqrt((groups - 1) / groups) * (replicates - replicates.mean(axis=1, keepdims=True))
    rng = np.random.default_rng(seed)
    spread = np.sqrt(rng.chisquare(groups - 1, draws) / (groups - 1))
    drawn = values[:, None] + deviations @ rng.standard_normal((groups, draws)) / spread
    clear = _clear(values, deviations, float(stdtrit(groups - 1, 0.5 + level / 2)))
    best = _shared(np.bincount(drawn.argmax(axis=0), minlength=len(names)) / draws, values, replicates)
    return Comparison(
        tuple(names),
        dict(zip(names, best.tolist(), strict=True)),
        _groups(names, clear),
        {
            n: tuple(o for o, c in zip(names, row, strict=True) if not c and o != n)
            for n, row in zip(names, clear, strict=True)
        },
        left_out,
    )


def _shared(chance: Floats, values: Floats, replicates: Floats) -> Floats:
    """The chance of candidates whose scores are the same (a checkpoint added twice) divided evenly between them."""
    _, same = np.unique(np.column_stack((values, replicates)), axis=0, return_inverse=True)
    same = same.reshape(-1)
    return (np.bincount(same, weights=chance) / np.bincount(same))[same]


def _not_comparable(score: Score) -> str | None:
    if score.value is None:
        return score.undefined
    return None if score.interval else "it has no interval"


def _clear(values: Floats, deviations: Floats, limit: float) -> Flags:
    """(n, n) bool: the difference of two candidates is larger than `limit` standard errors of that difference."""
    errors = np.linalg.norm(deviations[:, None] - deviations[None], axis=2)
    return np.asarray(np.abs(values[:, None] - values[None]) > limit * errors)


def _groups(names: Sequence[str], clear: Flags) -> dict[str, int]:
    """Start a group at the best candidate; the next one starts where the difference to its first is clear."""
    group: dict[str, int] = {}
    first, number = 0, 1
    for i, name in enumerate(names):
        if clear[first, i]:
            first, number = i, number + 1
        group[name] = number
    return group
