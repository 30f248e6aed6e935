"""How well a belief foretells, leaving one dataset out: everything is learned anew from the other datasets each time.

    python -m worker.studies.evidence.beliefs docs/studies/truth

writes leave_one_out.csv and calibration.csv beside the tables that it reads. The sample are the datasets: means and
differences have t intervals over them.
"""

from __future__ import annotations

import csv
import itertools
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np
from scipy import stats

from worker.ranking.belief import Evidence, Facts, Learned, TargetFacts, believe
from worker.ranking.belief.learn import learn
from worker.ranking.belief.records import SCORES, Belief
from worker.ranking.belief.tables import evidence_of, means
from worker.studies.measures.agreement import lost_at, regret_at, rel_at, weighted_tau

LEVEL = 0.95
COVERED = (0.5, 0.8, 0.95)
FEWEST = 5
BINS = (0.0, 0.05, 0.2, 0.5, 1.0001)
MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "weighted_tau": weighted_tau,
    "rel_at_1": lambda s, t: rel_at(1, s, t),
    "regret_at_1": lambda s, t: regret_at(1, s, t),
    "regret_at_3": lambda s, t: regret_at(3, s, t),
    "map_lost_at_1": lambda s, t: lost_at(1, s, t),
    "map_lost_at_3": lambda s, t: lost_at(3, s, t),
}
BLIND = "blind list"
BELIEF, UNSEEN, WITH_CURVE = "belief", "belief, candidate unseen", "belief + half of the training"
CURVE = "half of the training"
PARAMETERS = "parameters"
# what who knew each candidate's mean over infinitely many trainings would reach, for the truth has the noise of few
CEILING = "ceiling"
DRAWS = 300
# how many of its own order are fine-tuned before it is asked again
TRAINED = (1, 2, 3)
# what is taken away, as standard deviations of 0
ABLATIONS = {
    "belief without scores": {"scores": 0.0},
    "belief without facts of the candidate": {"candidate_facts": 0.0, "architecture": 0.0},
    "belief without sizes of objects": {"object_sizes": 0.0},
    "belief without own history": {"candidate": 0.0, "architecture": 0.0},
}


@dataclass(frozen=True)
class Row:
    """A measure of a way to order: its mean over `datasets`, with the limits of a t interval (None with fewer than two),
    and the same of the paired difference to the blind list."""

    way: str
    measure: str
    datasets: int
    mean: float
    low: float | None
    high: float | None
    ahead: float | None
    ahead_low: float | None
    ahead_high: float | None


@dataclass(frozen=True)
class Judged:
    """rows: of every way and measure; orders: way to dataset to candidate to what it orders by; coverage: level to the
    share of single trainings within it, and its mean width in mAP; chances: (lower, upper limit, cases, mean chance that
    was told, share that was the best)."""

    rows: tuple[Row, ...]
    orders: Mapping[str, Mapping[str, Mapping[str, float]]]
    coverage: Mapping[float, tuple[float, float, int]]
    chances: tuple[tuple[float, float, int, float, float], ...]


def judge(evidence: Sequence[Evidence]) -> Judged:
    """Of datasets with at least `FEWEST` candidates that were fine-tuned and have scores.

    Untrained candidates are not ordered, for to put them last would say little of an order; `pools` holds orders against all.
    """
    truth = means(evidence)
    pools = pools_of([each for each in evidence if not each.candidate.untrained], truth)
    orders: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    cases: list[tuple[float, bool]] = []
    inside: dict[float, list[tuple[bool, float]]] = defaultdict(list)
    for dataset, (target, pool) in pools.items():
        others = [each for each in evidence if each.target.key != dataset]
        here = [each for each in evidence if each.target.key == dataset]
        learned = learn(others)
        found = believe(pool, target, learned=learned)
        best = max((truth[dataset, each.key], each.key) for each in pool)[1]
        cases += [(each.chance_of_best, each.key == best) for each in found.candidates]
        for level in COVERED:
            said = believe(pool, target, learned=learned, level=level)
            limits = {each.key: (each.low, each.high) for each in said.candidates}
            inside[level] += [
                (
                    limits[e.candidate.key][0] <= e.observed.map <= limits[e.candidate.key][1],
                    limits[e.candidate.key][1] - limits[e.candidate.key][0],
                )
                for e in here
                if e.observed.share >= 1 and e.candidate.key in limits
            ]
        for way, order in orders_on(target, pool, learned, here, others).items():
            orders[way][dataset] = order
    rows = [
        row
        for way, of in orders.items()
        for measure in MEASURES
        if (row := _row(way, measure, of, orders[BLIND], truth)) is not None
    ]
    rows += _ceiling(evidence, {d: [each.key for each in pool] for d, (_, pool) in pools.items()}, truth)
    return Judged(
        tuple(rows),
        orders,
        {
            level: (_mean(hit for hit, _ in own), _mean(width for _, width in own), len(own))
            for level, own in inside.items()
        },
        tuple(_bins(cases)),
    )


def pools_of(
    evidence: Sequence[Evidence], truth: Mapping[tuple[str, str], float], fewest: int = FEWEST
) -> dict[str, tuple[TargetFacts, list[Facts]]]:
    """Of each dataset the candidates that have a truth and scores, where there are at least `fewest`."""
    found: dict[str, tuple[TargetFacts, dict[str, Facts]]] = {}
    for each in evidence:
        if each.candidate.scores and (each.target.key, each.candidate.key) in truth:
            found.setdefault(each.target.key, (each.target, {}))[1][each.candidate.key] = each.candidate
    return {
        dataset: (target, list(pool.values()))
        for dataset, (target, pool) in found.items()
        if len(pool) >= fewest
    }


def orders_on(
    target: TargetFacts,
    pool: Sequence[Facts],
    learned: Learned,
    here: Sequence[Evidence],
    others: Sequence[Evidence],
) -> dict[str, dict[str, float]]:
    """Every way to order the pool of one dataset: {way: {candidate: what it orders by}}.

    learned, others: from and of the other datasets; here: trainings on this one, of which the truth is made.
    """
    orders = {BELIEF: _means_of(believe(pool, target, learned=learned))}
    first = sorted(orders[BELIEF], key=lambda key: -orders[BELIEF][key])
    for count in TRAINED:
        seen = [e for e in here if e.observed.share >= 1 and e.candidate.key in first[:count]]
        orders[f"belief + its first {count} trained"] = _means_of(
            believe(pool, target, seen, learned=learned)
        )
    # other weights of the same architectures, of which nothing has been trained anywhere
    strangers = [replace(each, key=f"{each.key} unseen") for each in pool]
    said = believe(strangers, target, learned=learned)
    orders[UNSEEN] = {each.key: own.mean for each, own in zip(pool, said.candidates, strict=True)}
    for name, changes in ABLATIONS.items():
        spread = replace(learned.spread, **changes)
        orders[name] = _means_of(believe(pool, target, learned=replace(learned, spread=spread)))
    half = {e.candidate.key: e.observed.map for e in here if e.observed.share < 1}
    if all(each.key in half for each in pool) and learned.curves:
        seen = [e for e in here if e.observed.share < 1]
        orders[WITH_CURVE] = _means_of(believe(pool, target, seen, learned=learned))
        orders[CURVE] = {each.key: half[each.key] for each in pool}
    known_there: dict[str, dict[str, float]] = defaultdict(dict)
    for (other, candidate), value in means(others).items():
        known_there[other][candidate] = value
    # where all of them were trained: else who was trained on hard datasets alone would stand low
    common = [found for found in known_there.values() if all(each.key in found for each in pool)]
    if common:
        orders[BLIND] = {each.key: float(np.mean([found[each.key] for found in common])) for each in pool}
    orders[PARAMETERS] = {each.key: float(each.parameters or 0) for each in pool}
    for metric, quantity in SCORES:
        values = {each.key: each.scores.get((metric, quantity)) for each in pool}
        known = {key: value for key, value in values.items() if value is not None}
        if len(known) == len(pool):
            orders[f"{quantity} of {metric}"] = known
    return orders


def _means_of(found: Belief) -> dict[str, float]:
    return {each.key: each.mean for each in found.candidates}


def measured_by(measure: str, order: Mapping[str, float], truth: Mapping[str, float]) -> float:
    """One of `MEASURES` of an order of candidates; not a number where it is not defined."""
    scores = np.array([list(order.values())])
    return float(MEASURES[measure](scores, np.array([[truth[key] for key in order]]))[0])


def _row(
    way: str,
    measure: str,
    of: Mapping[str, Mapping[str, float]],
    blind: Mapping[str, Mapping[str, float]],
    truth: Mapping[tuple[str, str], float],
) -> Row | None:
    def measured(order: Mapping[str, float], dataset: str) -> float:
        return measured_by(measure, order, {key: truth[dataset, key] for key in order})

    values = {dataset: measured(order, dataset) for dataset, order in of.items()}
    values = {dataset: value for dataset, value in values.items() if np.isfinite(value)}
    if not values:
        return None
    ahead = [value - measured(blind[d], d) for d, value in values.items() if d in blind]
    low, high = limits_of(list(values.values()))
    ahead_low, ahead_high = limits_of(ahead)
    return Row(
        way,
        measure,
        len(values),
        _mean(values.values()),
        low,
        high,
        _mean(ahead) if ahead else None,
        ahead_low,
        ahead_high,
    )


def _ceiling(
    evidence: Sequence[Evidence], pools: Mapping[str, Sequence[str]], truth: Mapping[tuple[str, str], float]
) -> list[Row]:
    """The truth against itself without its noise, which is that of a seed over the number of trainings."""
    noise, rng = learn(evidence).spread.seed, np.random.default_rng(0)
    trained = Counter((e.target.key, e.candidate.key) for e in evidence if e.observed.share >= 1)
    found = []
    for measure, of in MEASURES.items():
        values = []
        for dataset, keys in pools.items():
            roots = np.sqrt([truth[dataset, key] for key in keys])
            sds = noise / np.sqrt([trained[dataset, key] for key in keys])
            draws = roots + sds * rng.standard_normal((DRAWS, len(keys)))
            values.append(_mean(of(np.tile(roots, (DRAWS, 1)), draws**2)))
        low, high = limits_of(values)
        found.append(Row(CEILING, measure, len(values), _mean(values), low, high, None, None, None))
    return found


def limits_of(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Of the mean's t interval over datasets; None with fewer than two."""
    if len(values) < 2:
        return None, None
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1) * np.std(values, ddof=1)) / len(values) ** 0.5
    return mean - half, mean + half


def _bins(cases: Sequence[tuple[float, bool]]) -> list[tuple[float, float, int, float, float]]:
    found = []
    for low, high in itertools.pairwise(BINS):
        own = [(chance, best) for chance, best in cases if low <= chance < high]
        if own:
            found.append((low, min(high, 1.0), len(own), _mean(c for c, _ in own), _mean(b for _, b in own)))
    return found


def _mean(values: Iterable[float]) -> float:
    return float(np.mean([float(value) for value in values]))


def write(found: Judged, folder: Path) -> list[Path]:
    """leave_one_out.csv and calibration.csv, which stands for the coverage of intervals and for chances alike."""
    with (folder / "leave_one_out.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([field.name for field in fields(Row)])
        rows.writerows(
            [f"{x:.4f}" if isinstance(x, float) else x for x in astuple(row)] for row in found.rows
        )
    with (folder / "calibration.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["of", "said", "cases", "found", "mean_width"])
        for level, (share, width, cases) in found.coverage.items():
            rows.writerow(["interval", level, cases, f"{share:.3f}", f"{width:.3f}"])
        for low, high, cases, said, best in found.chances:
            rows.writerow([f"chance of best, {low:g} to {high:g}", f"{said:.3f}", cases, f"{best:.3f}", ""])
    return [folder / "leave_one_out.csv", folder / "calibration.csv"]


def main(folder: Path) -> None:
    for path in write(judge(evidence_of([folder])), folder):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python -m worker.studies.evidence.beliefs FOLDER_OF_TABLES")
    main(Path(sys.argv[1]))
