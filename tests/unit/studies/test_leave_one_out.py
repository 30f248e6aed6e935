"""Which candidates leaving one dataset out is about, and what its tables say of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.studies.test_pools import REACHED, SIZE, evidence
from worker.studies.evidence.beliefs import BELIEF, BLIND, CEILING, Judged, judge, write

TRAINED = [name for name in SIZE if name != "u"]


@pytest.fixture(scope="module")
def found() -> Judged:
    return judge(evidence())


def test_untrained_candidates_are_not_ordered(found: Judged) -> None:
    assert {BELIEF, BLIND} <= set(found.orders)
    for of in found.orders.values():
        assert set(of) == set(REACHED)
        assert all(sorted(order) == sorted(TRAINED) for order in of.values())
    assert {cases for _, _, cases in found.coverage.values()} == {len(TRAINED) * len(REACHED)}


def test_what_they_reach_changes_no_order_of_the_others(found: Judged) -> None:
    other = [
        replace(e, observed=replace(e.observed, map=0.9)) if e.candidate.untrained else e for e in evidence()
    ]
    assert judge(other).orders[BELIEF] == found.orders[BELIEF]


def test_the_tables_have_every_way(found: Judged, tmp_path: Path) -> None:
    for path in write(found, tmp_path):
        assert path.exists()
    written = (tmp_path / "leave_one_out.csv").read_text()
    assert all(f"\n{way},weighted_tau,4," in written for way in (BELIEF, BLIND, CEILING))
