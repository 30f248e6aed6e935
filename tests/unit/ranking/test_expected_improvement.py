"""Stretches by expected improvement: worth what brute force says, within the budget, and nobody is cut."""

from dataclasses import replace

import numpy as np
import pytest

from worker.ranking.belief.learned import Curve
from worker.ranking.belief.posterior import curve_at
from worker.ranking.belief.records import AT_THE_END
from worker.ranking.expected_improvement import (
    Outlook,
    expected_map,
    next_stretches,
    prospects,
    stops_of,
    whole_training,
)
from worker.ranking.halving import Entrant, Pace, next_round

CURVES = (Curve(0.5, 0.02, 0.85, 0.03, 0.04), Curve(AT_THE_END, 0.01, 0.95, 0.02, 0.02))
STOPS = (60, 120)


def outlook(means: list[float], sd: float = 0.1, common: float = 0.0) -> Outlook:
    n = len(means)
    return Outlook(np.array(means), sd**2 * np.eye(n) + common**2, CURVES, 0.02)


def entrant(id: str, iterations: int = 0, value: float | None = None, **more: object) -> Entrant:
    return Entrant(id, more.pop("pace", Pace(1.0)), 0, iterations, value, **more)


def looked(root: float, share: float) -> float:
    """Validation mAP of a training whose end is `root`, without noise."""
    curve = curve_at(min(share, AT_THE_END), CURVES)
    return (curve.offset + curve.slope * root) ** 2


def test_a_stretch_is_worth_what_brute_force_says() -> None:
    rng = np.random.default_rng(0)
    covariance = np.array([[0.012, 0.006, 0.002], [0.006, 0.015, 0.004], [0.002, 0.004, 0.010]])
    found = Outlook(np.array([0.5, 0.52, 0.45]), covariance, CURVES, 0.02)
    before = [entrant("a", 60, looked(0.55, 0.5)), entrant("b"), entrant("c")]
    told = prospects(before, found, STOPS)["b"]
    assert told.stop in STOPS

    # the same by drawing what the look may show and conditioning by the textbook
    curves = [CURVES[0], CURVES[STOPS.index(told.stop)]]
    rows = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    noise = np.diag([0.02**2 + (c.noise / c.slope) ** 2 for c in curves])
    shared = np.array([c.target / c.slope for c in curves])
    joint = rows @ covariance @ rows.T + noise + np.outer(shared, shared)
    first = covariance @ rows[0] / joint[0, 0]
    mean = found.mean + first * (0.55 - 0.5)
    narrowed = covariance - np.outer(first, rows[0] @ covariance)
    assert expected_map(before, found, 120) == pytest.approx(mean**2 + np.diag(narrowed), abs=1e-6)
    gain = covariance @ rows.T @ np.linalg.inv(joint)
    left = np.diag(covariance - gain @ rows @ covariance)
    spread = joint[1, 1] - joint[1, 0] ** 2 / joint[0, 0]
    expected_look = found.mean[1] + joint[1, 0] / joint[0, 0] * 0.05
    draws = expected_look + np.sqrt(spread) * rng.standard_normal(200_000)
    looks = np.stack([np.full(len(draws), 0.05), draws - found.mean[1]], axis=1)
    after = np.clip(found.mean + looks @ gain.T, 0, None) ** 2 + left
    worth = after.max(axis=1).mean() - (mean**2 + np.diag(narrowed)).max()
    assert told.improvement == pytest.approx(worth, rel=0.03)


def test_seconds_count_and_equals_go_in_the_order_of_the_scores() -> None:
    both = [entrant("slow", pace=Pace(2.0)), entrant("fast")]
    step = next_stretches(both, outlook([0.5, 0.5]), STOPS, 1e6)
    assert step is not None
    assert [part.id for part in step.parts] == ["fast"]
    step = next_stretches([entrant("b"), entrant("a")], outlook([0.5, 0.5]), STOPS, 1e6)
    assert step is not None
    assert step.parts[0].id == "b"
    assert step.parts[0].improvement is not None
    assert step.parts[0].improvement > 0.001


def test_nobody_is_cut_by_a_look_within_the_noise() -> None:
    # a little behind at half time, where halving would have gone on with the other alone
    pool = [entrant("a", 60, looked(0.52, 0.5)), entrant("b", 60, looked(0.50, 0.5))]
    found = outlook([0.5, 0.5])
    a_done = [replace(pool[0], iterations=120, value=looked(0.46, 1.0)), pool[1]]
    step = next_stretches(a_done, found, STOPS, 1e6)
    assert step is not None
    assert step.parts[0].id == "b"
    # with much between them nothing is spent on the one behind
    far = [entrant("a", 120, looked(0.7, 1.0)), entrant("b", 60, looked(0.3, 0.5))]
    assert next_stretches(far, found, STOPS, 1e6) is None
    assert prospects(far, found, STOPS)["b"].improvement == pytest.approx(0, abs=1e-4)


def test_several_at_once_are_different_and_the_second_knows_of_the_first() -> None:
    pool = [entrant(name) for name in "abcd"]
    found = outlook([0.5, 0.5, 0.5, 0.5], common=0.2)
    step = next_stretches(pool, found, STOPS, 1e6, parts=3)
    assert step is not None
    assert len({part.id for part in step.parts}) == len(step.parts) == 3
    alone = prospects(pool, found, STOPS)["b"]
    second = step.parts[1]
    assert (second.stop, second.improvement) != (alone.stop, alone.improvement)
    assert sum(part.predicted_s for part in step.parts) <= 1e6


def test_what_the_named_one_needs_is_put_aside() -> None:
    pool = [entrant("a"), entrant("b")]
    found = outlook([0.55, 0.5])
    for left in (120, 150, 179):
        step = next_stretches(pool, found, STOPS, left)
        assert step is not None
        assert step.parts[0].id == "a", "half of b would leave too little for a"
    step = next_stretches(pool, found, STOPS, 181, puts_aside=False)
    assert step is not None
    # too little for anybody's end: as far as it goes, if that says anything
    step = next_stretches(pool, outlook([0.55, 0.1], sd=0.001), STOPS, 50, least=20)
    assert step is not None
    assert (step.parts[0].id, step.parts[0].stop) == ("a", 50)
    assert next_stretches(pool, outlook([0.55, 0.1], sd=0.001), STOPS, 10, least=20) is None


def test_it_ends_below_the_threshold_with_the_named_one_trained_to_its_end() -> None:
    sure = outlook([0.7, 0.3], sd=0.01)
    step = next_stretches([entrant("a"), entrant("b")], sure, STOPS, 1e6)
    assert step is not None
    assert [(part.id, part.stop, part.improvement) for part in step.parts] == [("a", 120, 0.0)]
    assert next_stretches([entrant("a", 120, looked(0.7, 1.0)), entrant("b")], sure, STOPS, 1e6) is None
    lost = [entrant("a", lost=True), entrant("b")]
    step = next_stretches(lost, sure, STOPS, 1e6)
    assert step is not None
    assert step.parts[0].id == "b"
    assert next_stretches([entrant("a", lost=True)], outlook([0.5]), STOPS, 1e6) is None


def test_a_whole_training_is_as_long_as_the_first_three_can_have() -> None:
    paces = [Pace(1.0, part_s=10.0)] * 4
    assert whole_training(paces, longest=500, budget_s=1e5) == 500
    assert whole_training(paces, longest=500, budget_s=330) == 100
    # three of 20 steps take 90 s, two take 60
    assert whole_training(paces, longest=500, budget_s=70) == 25
    assert whole_training([Pace(9.0), Pace(1.0)], longest=500, budget_s=40) == 40
    assert whole_training(paces, longest=500, budget_s=25) is None
    assert stops_of(101, CURVES) == (51, 101)
    assert stops_of(30, CURVES, least=20) == (30,)


def played(strategy: str, seed: int, budget: float) -> tuple[float, float]:
    """(mAP lost by the one that is named, seconds) in a world that is as the belief says."""
    rng = np.random.default_rng(seed)
    n = 8
    found = outlook([0.5] * n, sd=0.06, common=0.1)
    roots = np.clip(rng.multivariate_normal(found.mean, found.covariance), 0.05, 1)
    val = {
        share: np.clip(
            c.offset + c.slope * roots + c.target * rng.normal() + c.noise * rng.normal(size=n), 0, 1
        )
        ** 2
        for share, c in ((0.5, CURVES[0]), (1.0, CURVES[1]))
    }
    pool = [Entrant(str(i), Pace(1.0)) for i in range(n)]
    spent = 0.0
    while True:
        step = (
            next_round(pool, STOPS, budget - spent, eta=2)
            if strategy == "halving"
            else next_stretches(pool, found, STOPS, budget - spent)
        )
        if step is None:
            break
        for part in step.parts:
            each = pool[int(part.id)]
            spent += part.predicted_s
            share = part.stop / 120
            rung = step.rung if part.rung is None else part.rung
            value = float(val[share][int(part.id)]) if share in val else each.value
            pool[int(part.id)] = replace(each, rung=rung, iterations=part.stop, value=value)
    assert spent <= budget + 1e-6
    done = [i for i, each in enumerate(pool) if each.iterations == 120]
    assert done, "somebody came to the end"
    values = expected_map(pool, found, 120) if strategy != "halving" else [e.value or 0.0 for e in pool]
    named = max(done, key=lambda i: values[i])
    return float(roots.max() ** 2 - roots[named] ** 2), spent


def test_in_worlds_as_it_believes_it_loses_less_than_halving_by_the_same_seconds() -> None:
    budget = 480.0
    lost = {
        strategy: np.mean([played(strategy, seed, budget)[0] for seed in range(30)])
        for strategy in ("halving", "expected improvement")
    }
    assert lost["expected improvement"] < lost["halving"]
