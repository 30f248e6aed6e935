"""How well searches spend seconds, replayed over the trainings of a study with their curves, leaving one dataset out.

    python -m worker.studies.evidence.searches docs/studies/truth
    python -m worker.studies.evidence.searches docs/studies/real docs/studies/truth

writes searches.csv, and the table made of it, searches.md, beside the tables that it reads. Every way to spend is given
the same seconds, as a share of what training every candidate to its end takes (brute force), and then names a candidate.
What it loses is the regret: the best mAP of the pool less that of the named one. Training the named one to its end is not
counted, for every way must. The sample are the datasets: t intervals over them.

Seconds of a candidate are the median of all its trainings, for the machine did other work during some; a look at half of
the steps costs half of them. Where scores say who comes first, their seconds are counted, or given for free, as the row
says. Of random orders and where a way cannot tell candidates apart, the mean over all orders.
"""

from __future__ import annotations

import csv
import itertools
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy import stats

from worker.ranking.belief import Evidence
from worker.ranking.belief.learn import learn
from worker.ranking.belief.posterior import joint
from worker.ranking.belief.records import SCORES
from worker.ranking.expected_improvement import Outlook, expected_map, next_stretches
from worker.ranking.halving import Entrant, Pace, leader, next_round
from worker.studies.evidence.search_pools import Pool, pools_of

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
SHOWN = (0.05, 0.1, 0.2, 0.4, 1.0)
# orders that are gone through: all of seven candidates; of more so many that are drawn
MOST_ORDERS = math.factorial(7)
TIED_ORDERS = 24
LEVEL = 0.95
AIMS = (0.03, 0.02, 0.015)
EXPECTED, HALVING, RANDOM = "expected improvement", "halving", "random"
BLIND, TOP = "top of the blind list", "top of the scores"
NONE, COUNTED, FREE = "without scores", "scores counted", "scores for free"


@dataclass(frozen=True)
class Named:
    """What a way came to: the candidate it names, and those it trained, with the iterations they came to."""

    key: str
    trained: tuple[tuple[str, int], ...] = ()


# with the candidates in an order that decides between equals, the seconds, and the seed of the trainings
Way = Callable[[Sequence[str], float, int], Named]


@dataclass(frozen=True)
class Row:
    """The mean over datasets of what a way loses at a share of brute force: mAP, and as a share of the best; low, high: a
    95 % t interval of the mAP. finished: share of replays in which the named one had come to its end. ahead: mAP that it
    loses less than halving by the same seconds and with scores as the row says, with its t interval."""

    way: str
    scores: str
    share: float
    datasets: int
    regret: float
    low: float | None
    high: float | None
    regret_share: float
    finished: float
    ahead: float | None
    ahead_low: float | None
    ahead_high: float | None


def replay(pools: Mapping[str, Pool], evidence: Sequence[Evidence]) -> list[Row]:
    """Every way at every share, and its rows in the order of the ways."""
    lost: dict[tuple[str, str, float], dict[str, tuple[float, float, float]]] = defaultdict(dict)
    for dataset, pool in pools.items():
        others = [each for each in evidence if each.target.key != dataset]
        ways = _ways(pool, others)
        for (way, scores), (run, first_s) in ways.items():
            for share in SHARES:
                # of all seconds none is lost to rounding
                left_s = share * pool.brute_force_s - first_s + 1e-6
                if left_s >= 0:
                    lost[way, scores, share][dataset] = _lost(pool, run, left_s, everyone=way == RANDOM)
    return [
        _row(way, scores, share, own, lost.get((HALVING, scores, share), {}))
        for (way, scores, share), own in list(lost.items())
    ]


def _ways(pool: Pool, others: Sequence[Evidence]) -> dict[tuple[str, str], tuple[Way, float]]:
    """Each way with the seconds that go by before it begins."""
    learned = learn(others)
    known, mute = list(pool.facts.values()), [replace(each, scores={}) for each in pool.facts.values()]
    outlooks = {
        scores: Outlook.of(joint(own, pool.target, learned=learned), learned.curves, learned.spread.seed)
        for scores, own in ((FREE, known), (NONE, mute))
    }
    scored = {key: each.scores.get(SCORES[0]) for key, each in pool.facts.items()}
    order = {key: value for key, value in scored.items() if value is not None}
    found: dict[tuple[str, str], tuple[Way, float]] = {
        (EXPECTED, NONE): (partial(_expecting, pool, outlooks[NONE]), 0.0),
        (EXPECTED, FREE): (partial(_expecting, pool, outlooks[FREE]), 0.0),
        (RANDOM, NONE): (partial(_in_turn, pool, {}), 0.0),
    }
    if pool.blind:
        found[HALVING, NONE] = (partial(_halving, pool, pool.blind), 0.0)
        found[BLIND, NONE] = (partial(_in_turn, pool, pool.blind), 0.0)
    if not any(each.scores for each in known):
        del found[EXPECTED, FREE]
    if len(order) == len(pool.facts):
        found[HALVING, FREE] = (partial(_halving, pool, order), 0.0)
        found[TOP, FREE] = (partial(_in_turn, pool, order), 0.0)
    if pool.scoring_s is not None:
        first_s = pool.scoring_s * len(pool.facts)
        found |= {
            (way, COUNTED): (run, first_s) for (way, scores), (run, _) in found.items() if scores == FREE
        }
    return found


def _lost(pool: Pool, run: Way, left_s: float, *, everyone: bool) -> tuple[float, float, float]:
    """mAP lost, its share of the best, and the share of replays in which the named one was at its end; means over orders
    and seeds."""
    best = max(pool.truth.values())
    regrets, ends = [], []
    for seed in range(pool.seeds):
        for named in _over_orders(list(pool.facts), partial(_at, run, left_s, seed), everyone=everyone):
            regrets.append(best - pool.truth[named.key])
            ends.append((named.key, pool.whole) in named.trained)
    regret = float(np.mean(regrets))
    return regret, regret / best if best > 0 else 0.0, float(np.mean(ends))


def _at(run: Way, left_s: float, seed: int, names: Sequence[str]) -> Named:
    return run(names, left_s, seed)


def _over_orders(
    names: Sequence[str], run: Callable[[Sequence[str]], Named], *, everyone: bool
) -> Iterable[Named]:
    """One answer where the order decides nothing, which shows in that the reverse gives the same; else of all orders."""
    if not everyone:
        first = run(names)
        if run(names[::-1]) == first:
            return [first]
    most = MOST_ORDERS if everyone else TIED_ORDERS
    if math.factorial(len(names)) <= most:
        return [run(order) for order in itertools.permutations(names)]
    rng = np.random.default_rng(0)
    return [run([names[place] for place in rng.permutation(len(names))]) for _ in range(most)]


def _in_turn(pool: Pool, worth: Mapping[str, float], names: Sequence[str], left_s: float, seed: int) -> Named:
    """Trains them to their end, the best of the list first, as long as one fits; names the best by validation mAP."""
    order = sorted(names, key=lambda key: -worth.get(key, 0.0))
    trained = []
    for key in order:
        if pool.seconds[key] > left_s:
            break
        left_s -= pool.seconds[key]
        trained.append(key)
    named = max(trained, key=lambda key: pool.look(key, seed, pool.whole) or 0.0, default=order[0])
    return Named(named, tuple((key, pool.whole) for key in trained))


def _halving(pool: Pool, worth: Mapping[str, float], names: Sequence[str], left_s: float, seed: int) -> Named:
    """As the service halves, with rounds that end where the trainings were looked at; one in two goes on."""
    order = sorted(names, key=lambda key: -worth[key])
    entrants = [Entrant(key, Pace(pool.seconds[key] / pool.whole)) for key in order]
    stops = pool.stops()
    while (step := next_round(entrants, stops, left_s, eta=2)) is not None:
        ends = {part.id: part.stop for part in step.parts}
        left_s -= step.predicted_s
        entrants = [
            _trained(pool, each, ends[each.id], step.rung, seed) if each.id in ends else each
            for each in entrants
        ]
        if not set(ends.values()) <= set(stops):
            break  # it went as far as the seconds lasted, where nobody looked
    best = leader(entrants)
    return Named(order[0] if best is None else best.id, _stand(entrants))


def _expecting(pool: Pool, outlook: Outlook, names: Sequence[str], left_s: float, seed: int) -> Named:
    """As the service spends by expected improvement, for as long as a look that there is still fits."""
    place = {key: at for at, key in enumerate(pool.facts)}
    at = [place[key] for key in names]
    turned = replace(outlook, mean=outlook.mean[at], covariance=outlook.covariance[np.ix_(at, at)])
    entrants = [Entrant(key, Pace(pool.seconds[key] / pool.whole)) for key in names]
    stops = pool.stops()
    while step := next_stretches(entrants, turned, stops, left_s, least_improvement=0.0, puts_aside=False):
        (part,) = step.parts
        if part.stop not in stops or not part.improvement:
            break
        left_s -= part.predicted_s
        entrants = [
            _trained(pool, each, part.stop, part.rung or 0, seed) if each.id == part.id else each
            for each in entrants
        ]
    expected = expected_map(entrants, turned, pool.whole)
    return Named(names[int(np.argmax(expected))], _stand(entrants))


def _trained(pool: Pool, each: Entrant, stop: int, rung: int, seed: int) -> Entrant:
    seen = pool.look(each.id, seed, stop)
    return replace(each, iterations=stop, rung=rung, value=each.value if seen is None else seen)


def _stand(entrants: Sequence[Entrant]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((each.id, each.iterations) for each in entrants if each.iterations))


def _row(
    way: str,
    scores: str,
    share: float,
    own: Mapping[str, tuple[float, float, float]],
    halved: Mapping[str, tuple[float, float, float]],
) -> Row:
    regrets = [regret for regret, _, _ in own.values()]
    ahead = [halved[dataset][0] - own[dataset][0] for dataset in own if dataset in halved]
    low, high = _limits(regrets)
    ahead_low, ahead_high = _limits(ahead)
    return Row(
        way,
        scores,
        share,
        len(own),
        float(np.mean(regrets)),
        low,
        high,
        float(np.mean([relative for _, relative, _ in own.values()])),
        float(np.mean([finished for _, _, finished in own.values()])),
        float(np.mean(ahead)) if ahead else None,
        ahead_low,
        ahead_high,
    )


def _limits(values: Sequence[float]) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.ttest_1samp(values, 0.0).confidence_interval(LEVEL)
    return float(found.low), float(found.high)


def first_share(rows: Iterable[Row], way: str, scores: str, regret: float) -> float | None:
    """The smallest share of brute force from which on a way loses no more than this on average; None where it never does."""
    found = None
    for row in sorted((r for r in rows if (r.way, r.scores) == (way, scores)), key=lambda r: -r.share):
        if row.regret > regret:
            break
        found = row.share
    return found


def write(rows: Sequence[Row], pools: Mapping[str, Pool], folder: Path) -> list[Path]:
    """searches.csv and searches.md."""
    table = folder / "searches.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows([f"{x:.4f}" if isinstance(x, float) else x for x in astuple(row)] for row in rows)
    text = folder / "searches.md"
    text.write_text(as_text(rows, pools), encoding="utf-8")
    return [table, text]


def as_text(rows: Sequence[Row], pools: Mapping[str, Pool]) -> str:
    """The table of the shares that are shown, and the goals."""
    fewest, most = (of(len(pool.facts) for pool in pools.values()) for of in (min, max))
    many = str(most) if fewest == most else f"{fewest} to {most}"
    said = {(row.way, row.scores, row.share): row for row in rows}
    lines = [
        "# What searches lose by the seconds they spend",
        "",
        "<!-- made by `python -m worker.studies.evidence.searches` -->",
        f"Replayed over {len(pools)} datasets with {many} candidates, the belief learned anew without each. mAP that the named "
        "candidate lies below the best of the pool, [95 % t interval over datasets], at shares of what training all of them "
        "takes; training the named one to its end is not counted. How it is reckoned stands in "
        "`worker/studies/evidence/searches.py`, every number in searches.csv.",
        "",
        "| way to spend | scores | " + " | ".join(f"{share:.0%}" for share in SHOWN) + " |",
        "|---|---|" + "---|" * len(SHOWN),
    ]
    for way, scores in dict.fromkeys((row.way, row.scores) for row in rows):
        cells = [_cell(said.get((way, scores, share))) for share in SHOWN]
        lines.append(f"| {way} | {scores} | {' | '.join(cells)} |")
    lines += [
        "",
        "A dash: the scores alone take longer. Where everybody is trained, the best look at validation images still loses "
        "that much, for it is not the truth. Share of brute force from which on a way loses at most so much on average:",
        "",
        "| way to spend | scores | " + " | ".join(f"{aim} mAP" for aim in AIMS) + " |",
        "|---|---|" + "---|" * len(AIMS),
    ]
    for way, scores in dict.fromkeys((row.way, row.scores) for row in rows):
        reached = [first_share(rows, way, scores, aim) for aim in AIMS]
        cells = ["not by all" if share is None else f"{share:.0%}" for share in reached]
        lines.append(f"| {way} | {scores} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    limits = "" if row.low is None or row.high is None else f" [{row.low:.3f}, {row.high:.3f}]"
    return f"{row.regret:.3f}{limits}"


def main(folder: Path, facts: Path | None = None) -> None:
    pools, evidence = pools_of(folder, facts)
    for path in write(replay(pools, evidence), pools, folder):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("python -m worker.studies.evidence.searches FOLDER [FOLDER_OF_FACTS]")
    main(*map(Path, sys.argv[1:]))
