"""Replayed searches: hand-computed regrets, orders of ties, and that nothing of the dataset itself is known before."""

from pathlib import Path

import pytest

from worker.ranking.belief import Facts, TargetFacts
from worker.studies.evidence import searches
from worker.studies.evidence.search_pools import Pool, pools_of
from worker.studies.evidence.searches import Named

ROOT = Path(__file__).parents[3] / "docs" / "studies" / "truth"


def pool(**more: object) -> Pool:
    fields: dict = {
        "target": TargetFacts("here", 100, 3, 2.0),
        "facts": {name: Facts(name, f"net {name}", 10**6) for name in "abc"},
        "truth": {"a": 0.5, "b": 0.4, "c": 0.1},
        "looks": {"a": [{60: 0.3, 120: 0.5}], "b": [{60: 0.35, 120: 0.45}], "c": [{60: 0.1, 120: 0.1}]},
        "seconds": {"a": 100.0, "b": 100.0, "c": 100.0},
        "blind": {"a": 0.2, "b": 0.4, "c": 0.3},
        "whole": 120,
        "scoring_s": 10.0,
    }
    return Pool(**(fields | more))


def lost(found: Pool, way: searches.Way, left_s: float, everyone: bool = False) -> tuple[float, float, float]:
    return searches._lost(found, way, left_s, everyone=everyone)


def test_in_turn_by_hand() -> None:
    found = pool()

    def blind(names, left_s, seed):
        return searches._in_turn(found, found.blind, names, left_s, seed)

    assert lost(found, blind, 0) == pytest.approx((0.1, 0.2, 0.0)), "the first of the list, untrained"
    assert lost(found, blind, 100) == pytest.approx((0.1, 0.2, 1.0)), "b alone"
    assert lost(found, blind, 250) == pytest.approx((0.1, 0.2, 1.0)), "b and c"
    assert lost(found, blind, 300) == pytest.approx((0.0, 0.0, 1.0))


def test_random_is_the_mean_over_all_orders() -> None:
    found = pool()

    def in_any_order(names, left_s, seed):
        return searches._in_turn(found, {}, names, left_s, seed)

    assert lost(found, in_any_order, 0, everyone=True)[0] == pytest.approx((0 + 0.1 + 0.4) / 3)
    # of two of three: a is among them in two thirds, else b and c
    assert lost(found, in_any_order, 200, everyone=True)[0] == pytest.approx(0.1 / 3)
    assert lost(found, in_any_order, 300, everyone=True)[0] == pytest.approx(0)


def test_where_nothing_tells_them_apart_all_orders_count() -> None:
    tied = pool(blind={"a": 0.3, "b": 0.3, "c": 0.1})

    def blind(names, left_s, seed):
        return searches._in_turn(tied, tied.blind, names, left_s, seed)

    assert lost(tied, blind, 0)[0] == pytest.approx(0.05)
    calls: list[int] = []

    def sure(names, left_s, seed):
        calls.append(1)
        return Named("a")

    assert lost(pool(), sure, 0)[0] == 0
    assert len(calls) == 2, "an order and its reverse say that none decides"


def test_halving_by_hand() -> None:
    found = pool()

    def halving(names, left_s, seed):
        return searches._halving(found, found.blind, names, left_s, seed)

    # half of each is 150 s, the better one's other half 50: by half time that is b
    assert lost(found, halving, 200) == pytest.approx((0.1, 0.2, 1.0))
    # with what is left the next one goes on, too, and the end tells
    assert lost(found, halving, 250) == pytest.approx((0.0, 0.0, 1.0))
    assert lost(found, halving, 0)[0] == pytest.approx(0.1)


def test_a_share_counts_from_where_it_is_not_lost_again() -> None:
    def row(share: float, regret: float) -> searches.Row:
        return searches.Row("w", "s", share, 3, regret, None, None, regret, 1.0, None, None, None)

    rows = [row(0.1, 0.005), row(0.2, 0.02), row(0.4, 0.01), row(0.6, 0.0)]
    assert searches.first_share(rows, "w", "s", 0.01) == 0.4
    assert searches.first_share(rows, "w", "s", -1.0) is None


def test_where_there_are_scores_untrained_candidates_do_not_take_part() -> None:
    pools, evidence = pools_of(ROOT)
    assert any(each.candidate.untrained and each.candidate.scores for each in evidence)
    assert len(pools) == 17
    assert not any(each.untrained for pool in pools.values() for each in pool.facts.values())


@pytest.mark.slow
def test_over_the_committed_trainings_nothing_is_lost_that_all_seconds_would_find(tmp_path: Path) -> None:
    pools, evidence = pools_of(ROOT)
    rows = searches.replay(pools, evidence)
    assert len(pools) >= 7
    assert all(row.regret >= 0 for row in rows)
    at = {(row.way, row.scores, row.share): row for row in rows}
    everybody = {at[way, scores, 1.0].regret for way, scores in IN_TURN if (way, scores, 1.0) in at}
    assert max(everybody) - min(everybody) < 1e-9, "whoever trains all of them names the same"
    assert (searches.EXPECTED, searches.COUNTED, 0.05) not in at, "the scores alone take longer"
    for path in searches.write(rows, pools, tmp_path):
        assert path.stat().st_size > 1000


IN_TURN = [
    (searches.RANDOM, searches.NONE),
    (searches.BLIND, searches.NONE),
    (searches.TOP, searches.FREE),
]
