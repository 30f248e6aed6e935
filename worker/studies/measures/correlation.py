"""Which score deserves trust: its correlation with mAP, dataset by dataset and on average, each with n and an interval.

Measures: Pearson, Spearman, Kendall's tau-b, weighted Kendall tau (additive hyperbolic weights, symmetric: mean of the
ranking by truth and by score), Rel@k and Regret@k. Static baselines are measured exactly like metrics, and beside both
stands the noise ceiling: the same measures between the mAP of one seed of fine-tuning and that of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np

from worker.studies.errors import StudyRefused
from worker.studies.measures.agreement import kendall, pearson, regret_at, rel_at, spearman, weighted_tau
from worker.studies.measures.observations import Observation, Place, refuse_what_cannot_be_used

__all__ = ["Coefficient", "Correlations", "Observation", "Place", "StudyRefused", "correlate"]

LEVEL = 0.95
FEWEST = 3
KS = (1, 3)
STATIC = "static"  # stands for layer and level of a baseline
CORRELATIONS = ("pearson", "spearman", "kendall", "weighted_tau")
_LEAST_SHARE = 0.5  # of resamples with a value, below which no interval is told
_CELLS = 4_000_000  # comparisons of two candidates held at once

Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]  # scores and truth of the same candidates


@dataclass(frozen=True)
class Coefficient:
    """A measure's value, or in `undefined` why it has none.

    n: candidates it stands on, of an average datasets. low, high: 95 % percentile bootstrap over these n; None where
    there is none (a single dataset, or more than half of the resamples without a value). excluded: who is not among
    the n and why.
    """

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    undefined: str | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)


Measured = Mapping[str, Coefficient]  # by measure


@dataclass(frozen=True)
class Correlations:
    """What every score was worth.

    per_dataset: dataset to place to its measures; a baseline's place is (name, "static", "static"). average: place to
    the means over the datasets where it has a value. ahead: place to baseline to the mean paired difference over
    datasets, positive where the place is better. ceiling: dataset to measures between seeds, empty with one seed;
    ceiling_average: their means, None without. baselines: places of the static orders.
    """

    per_dataset: Mapping[str, Mapping[Place, Measured]]
    average: Mapping[Place, Measured]
    ahead: Mapping[Place, Mapping[Place, Measured]]
    ceiling: Mapping[str, Measured]
    ceiling_average: Measured | None
    baselines: tuple[Place, ...]
    measures: tuple[str, ...]

    def rows(self) -> Iterator[dict[str, Any]]:
        """One flat row per dataset (or "average"), score and measure, for CSV and JSON."""
        for dataset, table in [*self.per_dataset.items(), ("average", self.average)]:
            for place, measured in table.items():
                kind = "baseline" if place in self.baselines else "metric"
                yield from _rows(measured, dataset=dataset, kind=kind, place=place)
        between = [
            *self.ceiling.items(),
            *([("average", self.ceiling_average)] if self.ceiling_average else []),
        ]
        for dataset, measured in between:
            yield from _rows(measured, dataset=dataset, kind="noise ceiling", place=("between seeds", "", ""))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: {"measures": [...], "rows": [...], "ahead": [...]}."""
        ahead = [
            {**row, "baseline": baseline[0]}
            for place, others in self.ahead.items()
            for baseline, measured in others.items()
            for row in _rows(measured, dataset="average", kind="difference", place=place)
        ]
        return {"measures": list(self.measures), "rows": list(self.rows()), "ahead": ahead}


def correlate(
    observations: Sequence[Observation], *, bootstrap: int = 1000, seed: int = 0, ks: Sequence[int] = KS
) -> Correlations:
    """Correlations of every score and baseline with mAP (the mean over seeds).

    Within a dataset a score is measured over the candidates that have a value of it; who has none is named with the
    reason. A measure that has no value (fewer than three candidates, constant scores, k not below n) says so.
    `bootstrap`: resamples of candidates within a dataset, and of datasets for an average; 0 for no intervals. Raises
    StudyRefused for scores or mAP that are not finite: nothing is dropped.
    """
    refuse_what_cannot_be_used(observations)
    measures = measures_of(ks)
    by_dataset: dict[str, list[Observation]] = {}
    for each in observations:
        by_dataset.setdefault(each.dataset, []).append(each)
    figures = dict.fromkeys(name for each in observations for name in each.static)
    baselines = tuple((name, STATIC, STATIC) for name in figures)
    scored = dict.fromkeys(
        place for each in observations for place in (*each.scores, *each.undefined) if place not in baselines
    )
    per_dataset = {
        dataset: {
            place: _measured(group, place, measures, bootstrap, seed) for place in (*baselines, *scored)
        }
        for dataset, group in by_dataset.items()
    }
    ceiling, ceiling_average = noise_ceiling(observations, bootstrap=bootstrap, seed=seed, ks=ks)
    return Correlations(
        per_dataset=per_dataset,
        average={
            place: _averaged({d: table[place] for d, table in per_dataset.items()}, measures, bootstrap, seed)
            for place in (*baselines, *scored)
        },
        ahead={
            place: {
                other: _ahead(per_dataset, place, other, measures, bootstrap, seed) for other in baselines
            }
            for place in scored
        },
        ceiling=ceiling,
        ceiling_average=ceiling_average,
        baselines=baselines,
        measures=tuple(measures),
    )


def noise_ceiling(
    observations: Sequence[Observation], *, bootstrap: int = 1000, seed: int = 0, ks: Sequence[int] = KS
) -> tuple[dict[str, Measured], Measured | None]:
    """Dataset to measures between the mAP of one seed and that of another, and their averages; empty with one seed."""
    measures = measures_of(ks)
    ceiling = {}
    for dataset in dict.fromkeys(o.dataset for o in observations):
        if found := _between_seeds(
            [o for o in observations if o.dataset == dataset], measures, bootstrap, seed
        ):
            ceiling[dataset] = found
    return ceiling, _averaged(ceiling, measures, bootstrap, seed) if ceiling else None


def measures_of(ks: Sequence[int] = KS) -> dict[str, Measure]:
    """Name to function of all measures; `rel_at_1`, `regret_at_1` and so on for each k."""
    found: dict[str, Measure] = {
        "pearson": pearson,
        "spearman": spearman,
        "kendall": kendall,
        "weighted_tau": weighted_tau,
    }
    found |= {f"rel_at_{k}": partial(rel_at, k) for k in ks}
    return found | {f"regret_at_{k}": partial(regret_at, k) for k in ks}


def value_at(each: Observation, place: Place) -> tuple[float | None, str]:
    """The score, or static figure, at a place; else None and the reason."""
    if place[1:] == (STATIC, STATIC):
        return each.static.get(place[0]), each.undefined.get(place, "this figure is not known of it")
    if place in each.scores:
        return each.scores[place], ""
    return None, each.undefined.get(place, "it was not scored there")


def _measured(
    group: Sequence[Observation], place: Place, measures: Mapping[str, Measure], bootstrap: int, seed: int
) -> Measured:
    values, truth, excluded = [], [], {}
    for each in group:
        value, reason = value_at(each, place)
        if value is None:
            excluded[each.candidate] = reason
        else:
            values.append(value)
            truth.append(each.map)
    pair = (np.array(values, dtype=np.float64), np.array(truth, dtype=np.float64))
    return {
        name: _coefficient(name, measure, [pair], excluded, bootstrap, seed)
        for name, measure in measures.items()
    }


def _coefficient(
    name: str, measure: Measure, pairs: Sequence[Pair], excluded: Mapping[str, str], bootstrap: int, seed: int
) -> Coefficient:
    """The mean of a measure over pairs of columns of the same n candidates, resampled together."""
    n = len(pairs[0][0])
    if reason := _why_undefined(name, pairs, n):
        return Coefficient(None, n, undefined=reason, excluded=excluded)
    value = float(np.mean([measure(a[None], b[None])[0] for a, b in pairs]))
    resampled = []
    index = np.random.default_rng(seed).integers(n, size=(bootstrap, n))
    for rows in np.array_split(index, max(1, bootstrap * n * n // _CELLS)):
        resampled.append(np.mean([measure(a[rows], b[rows]) for a, b in pairs], axis=0))
    return Coefficient(value, n, *limits_of(np.concatenate(resampled)), excluded=excluded)


def _why_undefined(name: str, pairs: Sequence[Pair], n: int) -> str | None:
    fewest = FEWEST if name in CORRELATIONS else int(name.rsplit("_", 1)[1]) + 1
    if n < fewest:
        return f"{n} candidates have a value, at least {fewest} are needed"
    if any(np.ptp(scores) == 0 for scores, _ in pairs):
        return "all candidates have the same score"
    if name in CORRELATIONS and any(np.ptp(truth) == 0 for _, truth in pairs):
        return "all candidates have the same mAP"
    if name not in CORRELATIONS and any(truth.max() <= 0 for _, truth in pairs):
        return "no candidate has a mAP above 0"
    return None


def limits_of(resampled: np.ndarray) -> tuple[float | None, float | None]:
    """The 95 % percentile interval of resamples; None where most of them have no value."""
    usable = resampled[np.isfinite(resampled)]
    if not len(usable) or len(usable) < _LEAST_SHARE * len(resampled):
        return None, None
    low, high = np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _averaged(
    tables: Mapping[str, Measured], measures: Mapping[str, Measure], bootstrap: int, seed: int
) -> Measured:
    found = {}
    for name in measures:
        each = {dataset: measured[name] for dataset, measured in tables.items()}
        excluded = {dataset: c.undefined or "" for dataset, c in each.items() if c.value is None}
        found[name] = mean_over(
            [c.value for c in each.values() if c.value is not None], excluded, bootstrap, seed
        )
    return found


def _ahead(
    per_dataset: Mapping[str, Mapping[Place, Measured]],
    place: Place,
    baseline: Place,
    measures: Mapping[str, Measure],
    bootstrap: int,
    seed: int,
) -> Measured:
    found = {}
    for name in measures:
        sign = -1 if name.startswith("regret") else 1
        differences, excluded = [], {}
        for dataset, table in per_dataset.items():
            mine, other = table[place][name], table[baseline][name]
            if mine.value is None or other.value is None:
                excluded[dataset] = mine.undefined or f"{baseline[0]}: {other.undefined}"
            else:
                differences.append(sign * (mine.value - other.value))
        found[name] = mean_over(differences, excluded, bootstrap, seed)
    return found


def mean_over(values: Sequence[float], excluded: Mapping[str, str], bootstrap: int, seed: int) -> Coefficient:
    """The mean over datasets with its bootstrap interval."""
    n = len(values)
    if not n:
        return Coefficient(None, 0, undefined="it has a value on no dataset", excluded=excluded)
    if n == 1:
        return Coefficient(float(values[0]), 1, excluded=excluded)
    index = np.random.default_rng(seed).integers(n, size=(bootstrap, n))
    return Coefficient(
        float(np.mean(values)), n, *limits_of(np.array(values)[index].mean(axis=1)), excluded=excluded
    )


def _between_seeds(
    group: Sequence[Observation], measures: Mapping[str, Measure], bootstrap: int, seed: int
) -> Measured | None:
    """Each measure with the mAP of one seed as score and of another as truth, mean over ordered pairs of seeds."""
    shared = sorted(set.intersection(*(set(o.map_by_seed) for o in group)))
    columns = {s: np.array([o.map_by_seed[s] for o in group], dtype=np.float64) for s in shared}
    pairs = [(columns[a], columns[b]) for a, b in permutations(shared, 2)]
    if not pairs:
        return None
    return {
        name: _coefficient(name, measure, pairs, {}, bootstrap, seed) for name, measure in measures.items()
    }


def _rows(measured: Measured, *, dataset: str, kind: str, place: Place) -> Iterator[dict[str, Any]]:
    for name, each in measured.items():
        yield {
            "dataset": dataset,
            "kind": kind,
            "metric": place[0],
            "layer": place[1],
            "level": place[2],
            "measure": name,
            "value": each.value,
            "low": each.low,
            "high": each.high,
            "n": each.n,
            "undefined": each.undefined,
            "excluded": dict(each.excluded),
        }
