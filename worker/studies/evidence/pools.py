"""Whether what orders the whole pool also orders parts of it, and holds at another budget.

    python -m worker.studies.evidence.pools docs/studies/truth [FOLDER_OF_ANOTHER_BUDGET ...]

writes pools.csv beside the tables that it reads: trained candidates only, whole detectors only, candidates of one
architecture; then the same pool held to its validation mAP at half of the training, the smaller budget, and to that of
other folders of tables, whose candidates and datasets are the same and were trained longer. Each way to order is paired
with what never looks at the dataset: the blind list, what is published of candidates, parameters. The sample are the
datasets; what too few of them have is undefined, with the reason.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from worker.ranking.belief.learn import learn
from worker.ranking.belief.learned import Learned
from worker.ranking.belief.records import Evidence, Facts
from worker.ranking.belief.tables import evidence_of, facts_of, means
from worker.studies.evidence.beliefs import (
    BELIEF,
    BLIND,
    CURVE,
    PARAMETERS,
    WITH_CURVE,
    limits_of,
    measured_by,
    orders_on,
    pools_of,
)

# of two candidates an order is right or wrong, and no weighted tau says more
FEWEST = 3
# each is of some kinds of candidates only: way to the column of candidates.csv
PUBLISHED = {"published COCO mAP": "coco_box_map", "published ImageNet accuracy": "imagenet_top1"}
DEFAULT = "gain of detection_evidence_single"
# the mAP of the study's own budget, as an order of what another budget gives
THIS_BUDGET = "whole training"
WAYS = (BELIEF, WITH_CURVE, DEFAULT, CURVE, BLIND, *PUBLISHED, PARAMETERS)
BASELINES = (BLIND, *PUBLISHED, PARAMETERS)
SHOWN = ("weighted_tau", "regret_at_1")
WHOLE_POOL = "all"
HALF_BUDGET = "at half of the steps"
HALF = 0.5

Truth = Mapping[tuple[str, str], float]
Orders = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Row:
    """A measure of a way to order part of the candidates: its mean over `datasets` with the limits of a t interval, or,
    where `against` names another way, that of the paired difference to it. undefined: why there is none, or no interval."""

    pool: str
    way: str
    measure: str
    against: str
    datasets: int
    mean: float | None
    low: float | None
    high: float | None
    undefined: str


@dataclass(frozen=True)
class Case:
    """One group of candidates on one dataset: how each way orders them, and what they reached."""

    dataset: str
    orders: Orders
    truth: Mapping[str, float]


def by_architecture(pool: Sequence[Facts]) -> list[list[Facts]]:
    """A detector and its body make an architecture."""
    found: dict[str, list[Facts]] = defaultdict(list)
    for each in pool:
        found[each.architecture].append(each)
    return list(found.values())


POOLS: dict[str, Callable[[Sequence[Facts]], list[list[Facts]]]] = {
    WHOLE_POOL: lambda pool: [list(pool)],
    "trained only": lambda pool: [[each for each in pool if not each.untrained]],
    "whole detectors only": lambda pool: [[each for each in pool if each.detector]],
    "one architecture": by_architecture,
}


def held_against(
    evidence: Sequence[Evidence],
    published: Orders | None = None,
    budgets: Mapping[str, Truth] | None = None,
) -> list[Row]:
    """Every part of the pool and every budget. published: a way of `PUBLISHED` to candidate to its figure; budgets: name to
    {(dataset, candidate): mAP} of others than the study's own."""
    truth, published = means(evidence), published or {}
    learned: dict[str, Learned] = {}
    rows = []
    for name, groups in POOLS.items():
        cases = _cases(evidence, truth, groups, published, learned)
        rows += _rows(name, cases, WAYS)
    half = _at_half(evidence)
    whole = POOLS[WHOLE_POOL]
    for name, other in {HALF_BUDGET: half, **(budgets or {})}.items():
        cases = _cases(evidence, other, whole, published, learned, whole_training=truth)
        # at half of its steps a training cannot foretell itself
        ways = [way for way in WAYS if name != HALF_BUDGET or way not in (CURVE, WITH_CURVE)]
        rows += _rows(name, cases, (*ways, THIS_BUDGET))
    return rows


def _at_half(evidence: Sequence[Evidence]) -> Truth:
    """{(dataset, candidate): validation mAP at half of the steps, mean over seeds}"""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for each in evidence:
        if abs(each.observed.share - HALF) < 1e-6:
            found[each.target.key, each.candidate.key].append(each.observed.map)
    return {pair: float(np.mean(values)) for pair, values in found.items()}


def _cases(
    evidence: Sequence[Evidence],
    truth: Truth,
    groups: Callable[[Sequence[Facts]], list[list[Facts]]],
    published: Orders,
    learned: dict[str, Learned],
    whole_training: Truth | None = None,
) -> list[Case]:
    found = []
    for dataset, (target, pool) in pools_of(evidence, truth, FEWEST).items():
        others = [each for each in evidence if each.target.key != dataset]
        here = [each for each in evidence if each.target.key == dataset]
        for group in groups(pool):
            if len(group) < FEWEST:
                continue
            if dataset not in learned:
                learned[dataset] = learn(others)
            orders = orders_on(target, group, learned[dataset], here, others)
            for way, figures in published.items():
                orders[way] = {each.key: figures[each.key] for each in group if each.key in figures}
            if whole_training is not None:
                orders[THIS_BUDGET] = {
                    each.key: whole_training[dataset, each.key]
                    for each in group
                    if (dataset, each.key) in whole_training
                }
            found.append(Case(dataset, orders, {each.key: truth[dataset, each.key] for each in group}))
    return found


def _rows(pool: str, cases: Sequence[Case], ways: Sequence[str]) -> list[Row]:
    found = []
    for way in ways:
        for measure in SHOWN:
            found.append(_row(pool, way, measure, "", cases))
            found += [_row(pool, way, measure, against, cases) for against in BASELINES if against != way]
    return found


def _row(pool: str, way: str, measure: str, against: str, cases: Sequence[Case]) -> Row:
    by_dataset: dict[str, list[float]] = defaultdict(list)
    for case in cases:
        value = _value(case, way, measure, against)
        if value is not None and np.isfinite(value):
            by_dataset[case.dataset].append(value)
    # groups of one dataset are no sample of their own
    values = [float(np.mean(own)) for own in by_dataset.values()]
    low, high = limits_of(values)
    mean = float(np.mean(values)) if values else None
    return Row(pool, way, measure, against, len(values), mean, low, high, _why(cases, values))


def _value(case: Case, way: str, measure: str, against: str) -> float | None:
    """None where either way orders fewer than three of the candidates that both order."""
    order, other = case.orders.get(way, {}), case.orders.get(against, {}) if against else None
    keys = [key for key in case.truth if key in order and (other is None or key in other)]
    if len(keys) < FEWEST:
        return None
    own = measured_by(measure, {key: order[key] for key in keys}, case.truth)
    if other is None:
        return own
    return own - measured_by(measure, {key: other[key] for key in keys}, case.truth)


def _why(cases: Sequence[Case], values: Sequence[float]) -> str:
    if not cases:
        return f"no dataset has {FEWEST} such candidates that were trained and scored"
    if not values:
        return f"on no dataset are there {FEWEST} candidates that have it"
    return "one dataset has no interval" if len(values) == 1 else ""


def at_another_budget(folder: Path, other: Path) -> Truth:
    """{(dataset, candidate): mAP in the tables of `other`}, for candidates of the same names in `folder`, as it knows them.

    By name, for a detector that a study trained itself comes out of another machine with other weights.
    """
    here, there = ({name: facts.key for name, facts in facts_of(each)[1].items()} for each in (folder, other))
    known = {key: here[name] for name, key in there.items() if name in here}
    return {
        (dataset, known[key]): value
        for (dataset, key), value in means(evidence_of([other])).items()
        if key in known
    }


def published_of(folder: Path) -> dict[str, dict[str, float]]:
    """{way: {candidate: its figure in percent}} of those in a study's tables that have one."""
    with (folder / "candidates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        way: {row["weights_sha256"]: float(row[column]) for row in rows if row.get(column)}
        for way, column in PUBLISHED.items()
    }


def write(rows: Sequence[Row], folder: Path) -> Path:
    """pools.csv in the folder."""
    path = folder / "pools.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([field.name for field in fields(Row)])
        table.writerows([f"{x:.4f}" if isinstance(x, float) else x for x in astuple(row)] for row in rows)
    return path


def main(folder: Path, others: Sequence[Path]) -> None:
    budgets = {other.name: at_another_budget(folder, other) for other in others}
    rows = held_against(evidence_of([folder]), published_of(folder), budgets)
    sys.stdout.write(f"{write(rows, folder)}\n")


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("python -m worker.studies.evidence.pools FOLDER_OF_TABLES [FOLDER_OF_ANOTHER_BUDGET ...]")
    main(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
