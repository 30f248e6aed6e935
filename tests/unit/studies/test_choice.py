"""Choosing on some datasets: exact taus, the planted score wins, and what the others hold changes nothing."""

from dataclasses import replace

import pytest
from scipy.stats import weightedtau

from worker.studies.measures.choice import choose, leave_one_out, ranks_of, stand_last, tau_on
from worker.studies.measures.observations import Observation

GOOD, BAD, PARTIAL = (
    ("good", "stride 16", "local"),
    ("bad", "stride 16", "local"),
    ("partial", "stride 16", "local"),
)
PLACES = (BAD, GOOD, PARTIAL)
MAPS = {"a": (0.1, 0.2, 0.3, 0.4), "b": (0.5, 0.2, 0.4, 0.1), "c": (0.3, 0.1, 0.4, 0.2)}


def observed(maps=MAPS):
    """good: the mAP itself on a and b, its opposite on c; bad: always the opposite; partial: the mAP, without a value on b."""
    found = []
    for dataset, values in maps.items():
        for n, (value, real) in enumerate(zip(MAPS[dataset], values, strict=True)):
            scores = {GOOD: value if dataset != "c" else -value, BAD: -value, PARTIAL: value}
            undefined = {PARTIAL: "one class"} if dataset == "b" else {}
            found.append(
                Observation(
                    dataset,
                    f"c{n}",
                    {p: v for p, v in scores.items() if p not in undefined},
                    {},
                    {0: real},
                    undefined,
                )
            )
    return found


def group(rows, dataset):
    return [o for o in rows if o.dataset == dataset]


def test_the_planted_score_is_chosen_and_a_score_without_a_value_somewhere_is_not():
    found = choose(observed(), PLACES, ("a", "b"))
    assert (found.place, found.considered, tuple(found.fitting)) == (GOOD, 3, (GOOD, BAD))
    assert found.tau == pytest.approx(1.0)
    assert choose(observed(), PLACES, ("a",)).place == GOOD, "of equals the first"
    assert choose(observed(), (PARTIAL,), ("a", "b")).place is None


def test_what_other_datasets_hold_does_not_change_the_choice():
    before = choose(observed(), PLACES, ("a", "b"))
    rows = observed({**MAPS, "c": (0.9, 0.0, 0.8, 0.7)})
    worse = [replace(o, scores=dict.fromkeys(o.scores, 0.0)) if o.dataset == "c" else o for o in rows]
    assert choose(rows, PLACES, ("a", "b")) == before
    assert choose(worse, PLACES, ("a", "b")) == before
    assert (
        choose(
            observed({**MAPS, "a": (0.4, 0.3, 0.2, 0.1), "b": (0.1, 0.4, 0.2, 0.5)}), PLACES, ("a", "b")
        ).place
        == BAD
    )


def test_the_tau_is_that_of_scipy():
    rows = group(observed({**MAPS, "b": (0.1, 0.5, 0.3, 0.2)}), "b")
    scores, maps = [o.scores[GOOD] for o in rows], [o.map for o in rows]
    assert tau_on(rows, GOOD) == pytest.approx(weightedtau(scores, maps).statistic)
    assert tau_on(rows[:2], GOOD) is None
    assert tau_on(rows, PARTIAL) is None


def test_scores_that_must_put_some_candidates_last():
    rows = observed()
    # on a the mAP of c0 is the lowest, on b that of c3
    assert choose(rows, PLACES, ("a",), last={"c0"}).place == GOOD
    assert choose(rows, PLACES, ("a",), last={"c3"}).place == BAD
    none = choose(rows, PLACES, ("a", "b"), last={"c0"})
    assert (none.place, none.tau, none.fitting) == (None, None, {})
    tied = [replace(o, scores={GOOD: 1.0 if o.candidate in ("c0", "c1") else 2.0}) for o in group(rows, "a")]
    assert not stand_last(tied, GOOD, {"c0"}), "what a score cannot tell apart is not below"
    assert ranks_of(tied, GOOD, {"c0"}) == (3,)
    assert ranks_of(tied, GOOD, {"c2", "nobody"}) == (1,)
    assert not stand_last(group(rows, "b"), PARTIAL, {"c0"})
    assert stand_last(group(rows, "a"), GOOD, {"nobody"})


def test_each_dataset_is_left_out_once():
    found = leave_one_out(observed(), (BAD, GOOD))
    assert {d: (c.place, c.on) for d, c in found.items()} == {
        "a": (GOOD, ("b", "c")),
        "b": (GOOD, ("a", "c")),
        "c": (GOOD, ("a", "b")),
    }
