"""One score looked at on several datasets: its tau on each, the mean with its intervals, and what stands beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from worker.studies.measures.agreement import regret_at, weighted_tau
from worker.studies.measures.choice import ranks_of, stand_last
from worker.studies.measures.correlation import FEWEST, STATIC, Coefficient, limits_of, mean_over, value_at
from worker.studies.measures.observations import Observation, Place

Interval = tuple[float | None, float | None]
Taus = Mapping[str, float | None]  # by dataset


@dataclass(frozen=True)
class Share:
    """Of the noise ceiling, over `n` datasets; low, high: 95 % over datasets, None on a single one."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """A row of the tables.

    taus: dataset to weighted tau over the candidates that have a value, None where it has none. mean: over those
    datasets, its interval over datasets. by_candidates: 95 % interval of the mean over candidates. share: of the noise
    ceiling, None without one. ranks: dataset to the places of the untrained candidates; last: on how many they stand below
    all others; regret: mean Regret@1. above: on how many of the datasets where both have a value it is above the best
    static order there.
    """

    name: str
    kind: str
    place: Place | None
    taus: Taus
    mean: Coefficient
    by_candidates: Interval = (None, None)
    share: Share | None = None
    ranks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    last: int = 0
    regret: float | None = None
    above: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Beside:
    """What every line is seen against. ceiling: dataset to the tau between seeds, empty with one seed."""

    untrained: Collection[str]
    ceiling: Taus
    statics: Sequence[Place]
    bootstrap: int = 1000
    seed: int = 0


def line_of(
    name: str, kind: str, place: Place, observations: Sequence[Observation], on: Sequence[str], beside: Beside
) -> Line:
    """The score at `place` on the datasets `on`."""
    groups = {d: [o for o in observations if o.dataset == d] for d in on}
    taus = {d: tau_among(group, place) for d, group in groups.items()}
    regrets = [r for group in groups.values() if (r := _regret(group, place)) is not None]
    best_static = {
        d: max((t for s in beside.statics if (t := tau_among(group, s)) is not None), default=None)
        for d, group in groups.items()
    }
    both = [(t, s) for d in on if (t := taus[d]) is not None and (s := best_static[d]) is not None]
    return Line(
        name,
        kind,
        place,
        taus,
        mean_of(taus, beside),
        _over_candidates(groups, place, beside),
        share_of(taus, beside),
        {d: ranks_of(group, place, beside.untrained) for d, group in groups.items()},
        sum(stand_last(group, place, beside.untrained) for group in groups.values()),
        float(np.mean(regrets)) if regrets else None,
        (sum(a > b for a, b in both), len(both)),
    )


def line_of_taus(name: str, kind: str, taus: Taus, beside: Beside) -> Line:
    """A line of which only the taus are known."""
    return Line(name, kind, None, taus, mean_of(taus, beside), share=share_of(taus, beside))


def tau_among(group: Sequence[Observation], place: Place) -> float | None:
    """Weighted tau over the candidates of one dataset that have a value; None for fewer than three or without a value."""
    values, truth = _pairs(group, place)
    if len(values) < FEWEST:
        return None
    tau = weighted_tau(values[None], truth[None])[0]
    return float(tau) if np.isfinite(tau) else None


def mean_of(taus: Taus, beside: Beside) -> Coefficient:
    known = [t for t in taus.values() if t is not None]
    return mean_over(
        known, {d: "undefined" for d, t in taus.items() if t is None}, beside.bootstrap, beside.seed
    )


def share_of(taus: Taus, beside: Beside) -> Share | None:
    """Mean tau divided by the mean ceiling on the same datasets, with its interval over datasets; None without a ceiling."""
    pairs = np.array(
        [(t, c) for d, t in taus.items() if t is not None and (c := beside.ceiling.get(d)) is not None]
    )
    if not len(pairs) or pairs[:, 1].mean() <= 0:
        return None
    index = np.random.default_rng(beside.seed).integers(len(pairs), size=(beside.bootstrap, len(pairs)))
    means = pairs[index].mean(axis=1)
    with np.errstate(all="ignore"):
        ratios = np.where(means[:, 1] > 0, means[:, 0] / means[:, 1], np.nan)
    limits: Interval = limits_of(ratios) if len(pairs) > 1 else (None, None)
    return Share(float(pairs[:, 0].mean() / pairs[:, 1].mean()), len(pairs), *limits)


def static_places(observations: Sequence[Observation]) -> tuple[Place, ...]:
    return tuple(
        (name, STATIC, STATIC) for name in dict.fromkeys(name for o in observations for name in o.static)
    )


def _pairs(group: Sequence[Observation], place: Place) -> tuple[np.ndarray, np.ndarray]:
    found = [(v, o.map) for o in group if (v := value_at(o, place)[0]) is not None]
    values, truth = zip(*found, strict=True) if found else ((), ())
    return np.array(values, dtype=np.float64), np.array(truth, dtype=np.float64)


def _regret(group: Sequence[Observation], place: Place) -> float | None:
    values, truth = _pairs(group, place)
    if len(values) < 2:
        return None
    regret = regret_at(1, values[None], truth[None])[0]
    return float(regret) if np.isfinite(regret) else None


def _over_candidates(groups: Mapping[str, Sequence[Observation]], place: Place, beside: Beside) -> Interval:
    """Of the mean over datasets, with the same candidates drawn on each; only where all datasets have the same ones."""
    tables = [{o.candidate: (value_at(o, place)[0], o.map) for o in group} for group in groups.values()]
    tables = [table for table in tables if any(v is not None for v, _ in table.values())]
    names = sorted(tables[0]) if tables else []
    if len(names) < FEWEST or any(
        sorted(t) != names or any(v is None for v, _ in t.values()) for t in tables
    ):
        return None, None
    index = np.random.default_rng(beside.seed).integers(len(names), size=(beside.bootstrap, len(names)))
    taus = []
    for table in tables:
        both = np.array([table[name] for name in names], dtype=np.float64)
        taus.append(weighted_tau(both[index, 0], both[index, 1]))
    return limits_of(np.mean(taus, axis=0))
