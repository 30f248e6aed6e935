"""Belief, blind list and half of a training beside the scores of a study: by hand, and never from the dataset itself."""

from dataclasses import replace

import pytest

from worker.ranking.belief import Evidence, Facts, Learned, Observed, TargetFacts, believe
from worker.ranking.belief.learned import Spread
from worker.studies.measures.correlation import correlate
from worker.studies.measures.foreknown import (
    BELIEF,
    BLIND,
    BLIND_PLACE,
    HALF,
    NO_BELIEF,
    NO_FACTS,
    NO_HALF,
    NO_LIST,
    Known,
    half_of,
    with_foreknown,
)
from worker.studies.measures.observations import Observation
from worker.studies.reports.report import place_name, verdict, write_report
from worker.studies.study import StudyResults, section

NOTHING = Learned(0.5, Spread(), {}, (), ())
MAPS = {
    "one": {"a": 0.5, "b": 0.3, "c": 0.1},
    "two": {"a": 0.4, "b": 0.2, "c": 0.3},
    "three": {"a": 0.6, "b": 0.1, "c": 0.2},
}


def seen(dataset: str, candidate: str, map: float) -> Observation:
    return Observation(dataset, candidate, {("logme", "backbone.c4", "local"): map}, {}, {0: map, 1: map})


def observations(maps: dict[str, dict[str, float]] = MAPS) -> list[Observation]:
    return [seen(d, c, value) for d, pool in maps.items() for c, value in pool.items()]


def known(half: dict[tuple[str, str], float] | None = None, names: str = "abc") -> Known:
    return Known(
        {name: TargetFacts(f"digest of {name}", 100, 3, 2.0) for name in MAPS},
        {name: Facts(f"weights of {name}", f"net {name}", 10**6) for name in names},
        half or {},
    )


def of(rows: list[Observation], dataset: str, candidate: str) -> Observation:
    return next(each for each in rows if (each.dataset, each.candidate) == (dataset, candidate))


def test_the_blind_list_is_the_mean_on_the_other_datasets_where_all_were_trained() -> None:
    rows = with_foreknown(observations(), known(), NOTHING)
    assert of(rows, "one", "a").static[BLIND] == pytest.approx(0.5)
    assert of(rows, "one", "b").static[BLIND] == pytest.approx(0.15)
    # c was not trained on the third: what a and b have there would not compare
    fewer = {**MAPS, "three": {"a": 0.6, "b": 0.1}}
    rows = with_foreknown(observations(fewer), known(), NOTHING)
    assert of(rows, "one", "a").static[BLIND] == pytest.approx(0.4)
    assert of(rows, "three", "a").static[BLIND] == pytest.approx(0.45)
    alone = with_foreknown(observations({"one": MAPS["one"]}), known(), NOTHING)
    assert of(alone, "one", "a").static[BLIND] is None
    assert of(alone, "one", "a").undefined[BLIND_PLACE] == NO_LIST
    found = correlate(alone, bootstrap=0)
    assert found.per_dataset["one"][BLIND_PLACE]["kendall"].excluded["a"] == NO_LIST


def test_the_belief_of_a_dataset_stands_on_the_others_alone() -> None:
    rows = with_foreknown(observations(), known(), NOTHING)
    facts = known().candidates
    others = [
        Evidence(facts[c], known().targets[d], Observed(value))
        for d, pool in MAPS.items()
        if d != "one"
        for c, value in pool.items()
        for _ in range(2)
    ]
    by_hand = believe(list(facts.values()), known().targets["one"], others, learned=NOTHING)
    for each in by_hand.candidates:
        assert of(rows, "one", each.key[-1]).scores[BELIEF] == pytest.approx(each.mean)
    turned = {**MAPS, "one": {"a": 0.1, "b": 0.3, "c": 0.5}}
    again = with_foreknown(observations(turned), known(), NOTHING)
    assert of(again, "one", "a").scores[BELIEF] == of(rows, "one", "a").scores[BELIEF]
    # nor does it stand on what was shipped of the same contents
    shipped = replace(
        NOTHING,
        evidence=(
            Evidence(facts["a"], TargetFacts("its name"), Observed(0.01)),
            Evidence(facts["b"], TargetFacts("another"), Observed(0.2)),
        ),
        digests={"its name": "digest of one"},
    )
    assert [each.target.key for each in shipped.without_digest("digest of one").evidence] == ["another"]
    assert shipped.without_digest("digest of none") is shipped
    without = replace(shipped, evidence=shipped.evidence[1:], digests={"another": "digest of none"})
    told, same = (
        of(with_foreknown(observations(), known(), each), "two", "a").scores[BELIEF]
        for each in (shipped, without)
    )
    assert told != same, "of another dataset it does"


def test_what_is_not_known_is_said_and_no_number() -> None:
    alone = with_foreknown(observations({"one": MAPS["one"]}), known(), NOTHING)
    assert of(alone, "one", "a").undefined[BELIEF] == NO_BELIEF
    assert of(alone, "one", "a").undefined[HALF] == NO_HALF
    rows = with_foreknown(observations(), known({("one", "a"): 0.25}, names="ab"), NOTHING)
    assert of(rows, "one", "a").scores[HALF] == 0.25
    assert of(rows, "one", "c").undefined[BELIEF] == NO_FACTS
    assert BELIEF not in of(rows, "one", "c").scores


def test_half_is_the_look_nearest_to_it_and_there_must_be_one_of_each_training() -> None:
    one, other = [(30, 0.1), (55, 0.2), (61, 0.25), (120, 0.4)], [(60, 0.35), (120, 0.5)]
    assert half_of([(one, 120), (other, 120)]) == pytest.approx((0.25 + 0.35) / 2)
    assert half_of([(one, 120), ([(120, 0.5)], 120)]) is None
    assert half_of([([(30, 0.1)], 100)]) is None
    assert half_of([]) is None


def test_tables_and_words_have_them_beside_every_score(tmp_path) -> None:
    half = {(d, c): value / 2 for d, pool in MAPS.items() for c, value in pool.items()}
    part = section(
        "ranking", "Ranking", [], with_foreknown(observations(), known(half), NOTHING), bootstrap=50
    )
    (said,) = verdict(part)
    assert "belief" in said
    assert "half of the training" in said
    assert place_name(BLIND_PLACE) in said
    assert "of 1 scores" in said, "what is no score is not counted as one"
    written = write_report(StudyResults("A study", (), (), (part,)), tmp_path / "report")
    page, table = (path.read_text() for path in (written.html, written.correlations))
    for name in ("belief", "blind list", "half of the training"):
        assert name in page
    for name in ("belief,all that is known", "static_blind_list", "half_training"):
        assert name in table
