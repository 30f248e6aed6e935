"""Where a search's seconds go: never above the budget, nested rounds, nothing left that another part would fit in."""

import dataclasses
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.ranking.halving import Entrant, Ladder, Pace, Round, ladder, leader, next_round, ranked

paces = st.builds(
    Pace,
    iteration_s=st.floats(0.001, 3.0),
    part_s=st.floats(0.0, 20.0),
    along_s=st.floats(0.0, 30.0),
)


@dataclasses.dataclass
class Played:
    """A search carried out on the paper: what was trained, what it cost."""

    stops: tuple[int, ...]
    rounds: list[Round]
    entrants: list[Entrant]
    spent_s: float


def play(
    candidates: list[Pace],
    budget_s: float,
    *,
    longest: int = 300,
    least: int = 20,
    eta: int = 3,
    chance: random.Random,
    failing: float = 0.0,
    truth: float = 1.0,
) -> Played:
    """`truth`: real seconds for each predicted one, known after a candidate's first part."""
    found = ladder(candidates, longest=longest, budget_s=budget_s, eta=eta, least=least)
    late = found.late if found else frozenset()
    entrants = [Entrant(str(place), pace, late=place in late) for place, pace in enumerate(candidates)]
    if found is None:
        return Played((), [], entrants, 0.0)
    stops = found.stops
    rounds, spent = [], 0.0
    while step := next_round(entrants, stops, budget_s - spent, eta=eta, least=least):
        rounds.append(step)
        assert len(rounds) < 100, "it does not come to an end"
        for part in step.parts:
            place = int(part.id)
            before = entrants[place]
            spent += part.predicted_s * (truth if before.rung < 0 else 1.0)
            pace = before.pace
            if before.rung < 0:
                pace = Pace(*(value * truth for value in dataclasses.astuple(pace)))
            entrants[place] = dataclasses.replace(
                before,
                pace=pace,
                rung=step.rung,
                iterations=part.stop,
                value=round(chance.random(), 1),
                lost=chance.random() < failing,
            )
    return Played(stops, rounds, entrants, spent)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(paces, min_size=1, max_size=30),
    st.floats(1.0, 3000.0),
    st.integers(1, 2000),
    st.integers(2, 5),
    st.sampled_from([0.0, 0.2, 0.6]),
    st.randoms(use_true_random=False),
)
def test_never_above_the_budget_and_every_round_is_part_of_the_one_before(
    candidates, budget_s, longest, eta, failing, chance
):
    played = play(candidates, budget_s, longest=longest, eta=eta, chance=chance, failing=failing)
    assert played.spent_s <= budget_s * (1 + 1e-9)
    seen: dict[int, set[str]] = {}
    for step in played.rounds:
        ids = [part.id for part in step.parts]
        assert len(set(ids)) == len(ids)
        if step.rung and len(ids) > 1:  # one that goes on alone for as long as it lasts may pass rounds by
            assert set(ids) <= seen[step.rung - 1]
        assert not set(ids) & seen.get(step.rung, set()), "nobody trains a round twice"
        seen.setdefault(step.rung, set()).update(ids)
        assert all(part.stop <= played.stops[-1] for part in step.parts)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(paces, min_size=1, max_size=20),
    st.floats(1.0, 3000.0),
    st.integers(1, 2000),
    st.sampled_from([0.0, 0.3]),
    st.floats(0.2, 1.0),
    st.randoms(use_true_random=False),
)
def test_what_is_left_carries_nobody_who_waits_to_the_end(
    candidates, budget_s, longest, failing, truth, chance
):
    """Also where candidates turn out faster than was thought, or fail."""
    played = play(candidates, budget_s, longest=longest, chance=chance, failing=failing, truth=truth)
    left = budget_s - played.spent_s
    going = [each for each in played.entrants if not each.lost]
    last = len(played.stops) - 1
    if max((each.rung for each in going), default=-1) < last or last < 0:
        return  # nobody came to the end, so nobody is let in any more
    for rung in range(last):
        if behind := ranked(each for each in going if each.rung == rung):
            assert way(behind[0], played.stops) > left * (1 - 1e-9)
    for each in going:
        assert each.rung >= 0 or way(each, played.stops) > left * (1 - 1e-9)


def way(each: Entrant, stops: tuple[int, ...]) -> float:
    """Seconds of all that is before it."""
    ends = (each.iterations, *stops[each.rung + 1 :])
    return sum(each.pace.seconds(begin, end, stops[-1]) for begin, end in itertools.pairwise(ends))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 40),
    st.floats(0.01, 2.0),
    st.floats(0, 5),
    st.floats(5, 2000),
    st.randoms(use_true_random=False),
)
def test_equal_candidates_leave_less_than_one_of_them_takes(count, iteration_s, part_s, budget_s, chance):
    played = play([Pace(iteration_s, part_s)] * count, budget_s, chance=chance)
    last = len(played.stops) - 1
    if played.stops and any(each.rung < last for each in played.entrants):
        assert budget_s - played.spent_s < way(Entrant("", Pace(iteration_s, part_s)), played.stops)


@pytest.mark.parametrize("failing", [0.0, 0.5])
def test_the_best_go_on(failing):
    played = play([Pace(0.1, 1.0)] * 20, 200.0, chance=random.Random(3), failing=failing)
    first = {e.id: e for e in played.entrants}
    assert len(played.rounds[0].parts) >= len(played.rounds[-1].parts) >= 1
    best = leader(played.entrants)
    assert best.rung == len(played.stops) - 1
    assert best.value == max(e.value for e in first.values() if e.rung == best.rung and not e.lost)


def test_a_plentiful_budget_is_brute_force():
    """In one go where it is ample, by rounds that everybody survives where it is just enough."""
    for budget_s, rounds in ((1e6, [8]), (1.1 * 8 * 300 * 0.1, [8, 8, 8])):
        played = play([Pace(0.1)] * 8, budget_s, chance=random.Random(0))
        assert [len(step.parts) for step in played.rounds] == rounds
        assert played.stops[-1] == 300
        assert played.spent_s == pytest.approx(8 * 300 * 0.1)


def test_textbook_rounds():
    """27 candidates, eta 3: rounds of 27, 9, 3 and 1."""
    one = [Pace(1.0)] * 27
    cost = 27 * 20 + 9 * 40 + 3 * 120 + 360
    assert ladder(one, longest=10_000, budget_s=cost, least=20) == Ladder((20, 60, 180, 540))
    played = play(one, cost, longest=10_000, chance=random.Random(1))
    assert [len(step.parts) for step in played.rounds] == [27, 9, 3, 1]
    assert [step.predicted_s for step in played.rounds] == [540, 360, 360, 360]


def stops(paces: list[Pace], **asked) -> tuple[int, ...]:
    found = ladder(paces, **asked)
    return found.stops if found else ()


def test_a_whole_training_is_as_long_as_the_budget_allows_and_no_longer_than_asked():
    one = [Pace(0.5, 2.0)] * 6
    lengths = [stops(one, longest=300, budget_s=budget)[-1] for budget in (60, 120, 240, 480, 10_000)]
    assert lengths == sorted(lengths)
    assert stops(one, longest=300, budget_s=900) == (33, 100, 300)


def test_fewer_rounds_where_the_first_would_say_nothing():
    many = [Pace(1.0)] * 30
    assert stops(many, longest=300, budget_s=1000) == (33, 100, 300), "300 / 27 is less than 20 iterations"
    assert len(stops(many, longest=300, budget_s=150)) == 2
    assert stops(many, longest=300, budget_s=19.9) == ()
    assert stops(many, longest=300, budget_s=25) == (25,)
    assert stops(many, longest=7, budget_s=1000) == (7,), "as short as was asked for"


def test_one_that_is_far_too_slow_does_not_cost_the_others_their_place():
    mixed = [Pace(30.0), Pace(1.0), Pace(1.0), Pace(1.0)]
    assert ladder(mixed, longest=300, budget_s=600) == Ladder((100, 300), frozenset({0}))
    played = play(mixed, 600, chance=random.Random(0))
    assert [part.id for part in played.rounds[0].parts] == ["1", "2", "3"]
    assert not any(part.id == "0" for step in played.rounds for part in step.parts)
    assert ladder(mixed, longest=300, budget_s=1e4).late == frozenset()


def test_the_share_of_those_that_fail_goes_to_the_next_best():
    stops = (20, 60, 180)
    entrants = [Entrant(str(n), Pace(1.0), 0, 20, 1.0 - n / 10) for n in range(9)]
    left = 9 * 20.0 + 3 * 40 + 120 - 9 * 20
    step = next_round(entrants, stops, left)
    assert [part.id for part in step.parts] == ["0", "1", "2"]
    failed = [
        dataclasses.replace(each, rung=1, iterations=60, lost=each.id != "2") if each.id in "012" else each
        for each in entrants
    ]
    # both failed at once, so nearly all of their share is left
    step = next_round(failed, stops, left - 40 - 2)
    assert (step.rung, [part.id for part in step.parts]) == (1, ["3"])


def test_where_nobody_can_come_to_the_end_the_best_goes_as_far_as_it_lasts():
    stops = (33, 100, 300)
    entrants = [Entrant(str(n), Pace(1.0, 5.0), 0, 33, value) for n, value in enumerate((0.2, 0.4, None))]
    step = next_round(entrants, stops, 60.0)
    assert (step.rung, [(part.id, part.stop) for part in step.parts]) == (2, [("1", 33 + 55)])
    assert next_round(entrants, stops, 24.0) is None


def test_mean_average_precision_decides_and_the_score_breaks_ties():
    stops = (10, 30)
    entrants = [
        Entrant("a", Pace(1.0), 0, 10, 0.2),
        Entrant("b", Pace(1.0), 0, 10, 0.3),
        Entrant("c", Pace(1.0), 0, 10, 0.3),
    ]
    assert [part.id for part in next_round(entrants, stops, 21.0).parts] == ["b"]
    unknown = [dataclasses.replace(each, value=None) for each in entrants]
    assert [part.id for part in next_round(unknown, stops, 21.0).parts] == ["a"]
