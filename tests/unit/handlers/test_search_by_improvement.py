"""A search that spends by expected improvement, with played trainings: within the budget, explained, and it learns."""

import csv
import io

import pytest
from handler_bench import Bench
from small_service import queued, work_all
from test_search_rounds import Played, trained

from app.db.tables import Ranking
from app.schemas.searches import SearchView
from app.services import search_views

EXPECTING = {"strategy": "expected_improvement"}


@pytest.fixture
def played(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(bench, monkeypatch)


def trainings(found: SearchView) -> list:
    return [part for one in found.rounds if one.kind == "round" for part in one.parts]


def sound(found: SearchView) -> None:
    assert found.state == "succeeded"
    assert found.spent.total_s <= found.spent.budget_s * 1.001
    assert [one.kind for one in found.rounds][-1] == "final"
    at: dict[str, int] = {}
    for part in trainings(found):
        assert part.expected_improvement is not None
        assert part.expected_improvement >= 0
        assert part.begin == at.get(part.checkpoint_id, 0)
        assert part.stop in found.ladder
        at[part.checkpoint_id] = part.iterations or 0
    assert found.best.whole
    assert len({one.checkpoint_id for one in found.left_out} | trained(found)) == len(found.checkpoint_ids)


def test_each_part_says_why_it_was_chosen_and_the_best_is_found(played: Played) -> None:
    found = played.search(8, **EXPECTING)
    sound(found)
    assert found.request["strategy"] == "expected_improvement"
    assert found.ladder == [150, 300]
    assert found.best.checkpoint_id == played.ids[2]
    assert all(len(one.parts) == 1 for one in found.rounds), "no worker was heard of, so one at a time"
    rows = list(csv.DictReader(io.StringIO(search_views.as_csv(found))))
    assert {row["expected_improvement"] for row in rows if row["kind"] == "timing"} == {""}
    assert all(float(row["expected_improvement"]) >= 0 for row in rows if row["kind"] == "round")


def test_nobody_trains_where_little_is_expected_and_it_says_so(played: Played) -> None:
    found = played.search(60, min_improvement=0.05, **EXPECTING)
    sound(found)
    assert found.spent.total_s < 0.5 * found.spent.budget_s
    out = [one for one in found.left_out if one.code == "little_expected"]
    assert out
    assert "expected to raise the best mAP by" in out[0].reason


def test_several_train_at_once_each_another(played: Played) -> None:
    found = played.search(8, parallel=3, **EXPECTING)
    sound(found)
    sizes = [len(one.parts) for one in found.rounds if one.kind == "round"]
    assert max(sizes) == 3
    for one in found.rounds:
        assert len({part.checkpoint_id for part in one.parts}) == len(one.parts)


def test_what_was_trained_before_is_evidence(played: Played) -> None:
    first = played.search(8, **EXPECTING)
    # so sure that nobody else is looked at, and nobody was before
    assert len(trained(first)) > 1
    again = played.search(8, min_improvement=0.3, **EXPECTING)
    sound(again)
    assert trained(again) == {first.best.checkpoint_id} == {played.ids[2]}


def test_one_that_fails_takes_no_further_part(played: Played) -> None:
    whole = played.search(8, **EXPECTING)
    lost = trainings(whole)[0].checkpoint_id
    played.world.failing = {lost: 5}
    found = played.search(8, **EXPECTING)
    sound(found)
    assert [(one.checkpoint_id, one.code) for one in found.left_out if one.code == "failed"] == [
        (lost, "failed")
    ]
    assert found.best.checkpoint_id != lost


def test_too_little_for_anybody_is_said(played: Played) -> None:
    found = played.search(0.05, **EXPECTING)
    assert (found.state, found.best, found.rounds) == ("succeeded", None, [])
    assert {one.code for one in found.left_out} == {"no_room"}


@pytest.mark.parametrize(
    ("strangers", "fields", "expected"),
    [
        (0, {}, "expected_improvement"),
        (1, {}, "halving"),
        (0, {"rank_by": {"metric": "logme"}}, "halving"),
        (0, {"strategy": "halving"}, "halving"),
        (1, EXPECTING, "expected_improvement"),
    ],
)
def test_what_orders_the_ranking_also_spends_where_nothing_else_is_asked(
    played: Played, strangers: int, fields: dict, expected: str
) -> None:
    played.known = set(played.ids[strangers:])
    id = played.asked(8, **fields)
    assert played.at(id).strategy == fields.get("strategy")
    work_all(played.bench)
    found = played.at(id)
    assert (found.state, found.strategy) == ("succeeded", expected)
    weighed = {part.expected_improvement is not None for part in trainings(found)}
    assert weighed == {expected == "expected_improvement"}


def test_a_search_goes_on_by_what_it_began_with(played: Played) -> None:
    played.known = set(played.ids)
    id = played.asked(8)
    while (found := played.at(id)).strategy is None:
        played.bench.work(queued(played.bench))
    with played.bench.database.unit_of_work() as session:
        session.get_one(Ranking, found.ranking_id).belief = None
    work_all(played.bench)
    assert played.at(id).strategy == "expected_improvement"
