"""The order by gains over zero points, and the map that is chosen by the size of the objects."""

import dataclasses
import itertools

import pytest
from test_order import TARGET, at, candidate, interval

from worker.ranking import rule
from worker.ranking.order import order
from worker.ranking.records import Candidate, RankBy


def zeroed(
    name: str,
    value: float,
    zero: float | None,
    *,
    error_of_images: float = 1e-6,
    notes: tuple[str, ...] = (),
    **facts,
) -> Candidate:
    """error_of_images: of the value and of the gain."""
    made = candidate(name, at("logme", value), error_of_images=error_of_images, **facts)
    gained = None if zero is None else interval(f"gain of {name}", value - zero, error_of_images)
    scores = tuple(
        dataclasses.replace(score, zero_point=zero, gain_interval=gained, notes=notes)
        for score in made.scores
    )
    return dataclasses.replace(made, scores=scores)


def brought_nothing(*pool: Candidate) -> list[str]:
    return [each.detail for each in order(list(pool), TARGET).warnings if each.code == "brings_nothing"]


def test_the_gain_is_what_is_above_the_zero_point_and_orders_the_candidates():
    pool = [zeroed("a", 0.5, 0.25), zeroed("b", 0.75, 0.625), zeroed("c", 0.25, -1.0)]
    ordering = order(pool, TARGET)
    assert ordering.quantity == "gain"
    assert [(row.rank, row.name, row.value, row.zero_point, row.gain) for row in ordering.rows] == [
        (1, "c", 0.25, -1.0, 1.25),
        (2, "a", 0.5, 0.25, 0.25),
        (3, "b", 0.75, 0.625, 0.125),
    ]
    assert brought_nothing(*pool) == []
    undefined = dataclasses.replace(pool[0].scores[0], value=None, undefined="why")
    assert undefined.gain is None


def test_values_order_where_they_are_asked_for():
    pool = [zeroed("a", 0.5, 0.25), zeroed("b", 0.75, 0.625)]
    ordering = order(pool, TARGET, RankBy(quantity="value"))
    assert (ordering.quantity, [row.name for row in ordering.rows]) == ("value", ["b", "a"])
    assert "no_gain" not in {each.code for each in ordering.warnings}


def test_one_without_a_gain_keeps_all_from_being_ordered_by_it_and_is_named():
    pool = [
        zeroed("a", 0.5, 0.25),
        zeroed("b", 0.75, None, notes=("no zero point: NaN",)),
        zeroed("c", 0.25, -1.0),
    ]
    ordering = order(pool, TARGET)
    assert (ordering.quantity, [row.name for row in ordering.rows]) == ("value", ["b", "a", "c"])
    [said] = [each.detail for each in ordering.warnings if each.code == "no_gain"]
    assert "since b has no gain (NaN)" in said
    ordering = order(pool, TARGET, RankBy(quantity="gain"))
    assert [row.name for row in ordering.rows] == ["c", "a"]
    [out] = ordering.left_out
    assert (out.name, out.code, out.reason) == (
        "b",
        "undefined",
        "the gain of logme at backbone.c4 (local) is undefined: NaN",
    )


def test_without_any_zero_point_values_order_and_nothing_is_said_of_gains():
    ordering = order([zeroed("a", 0.5, None), zeroed("b", 0.75, None)], TARGET)
    assert (ordering.quantity, [row.name for row in ordering.rows]) == ("value", ["b", "a"])
    assert "no_gain" not in {each.code for each in ordering.warnings}


def test_ties_groups_and_chances_are_those_of_the_gain():
    pool = [
        zeroed("a", 5.0, 4.0, error_of_images=0.01),
        zeroed("b", 2.0, 1.001, error_of_images=0.01),
        zeroed("c", 7.0, 7.0, error_of_images=0.01),
    ]
    ordering = order(pool, TARGET)
    assert ordering.groups == (("ckpt_a", "ckpt_b"), ("ckpt_c",))
    assert ordering.ties == (("ckpt_a", "ckpt_b"),)
    first, second, _ = ordering.rows
    assert first.gain_interval[0] < 1.0 < first.gain_interval[1]
    assert first.interval[0] < 5.0 < first.interval[1]
    assert 0.4 < first.score_chance_of_highest < 0.9
    assert first.score_chance_of_highest + second.score_chance_of_highest == pytest.approx(1.0)
    by_value = order(pool, TARGET, RankBy(quantity="value"))
    assert by_value.groups == (("ckpt_c",), ("ckpt_a",), ("ckpt_b",))


def test_equal_gains_share_a_rank_whatever_their_values():
    rows = order([zeroed("a", 0.5, 0.25), zeroed("b", 0.75, 0.5), zeroed("c", 0.25, 0.125)], TARGET).rows
    assert [(row.name, row.rank) for row in rows] == [("a", 1), ("b", 1), ("c", 3)]


def test_who_does_not_beat_its_zero_point_is_said_to_bring_nothing():
    said = brought_nothing(
        zeroed("good", 1.0, 0.5, architecture="small"),
        zeroed("worse", 0.4, 0.5, architecture="small"),
        zeroed("equal", 0.5, 0.5, architecture="small"),
        zeroed("large", 0.1, 0.2, architecture="large"),
    )
    assert said == [
        "equal, worse do not beat the untrained small: their weights bring nothing to this dataset by logme",
        "large does not beat the untrained large: its weights bring nothing to this dataset by logme",
    ]


def test_an_interval_that_holds_the_zero_point_tells_nothing():
    said = brought_nothing(
        zeroed("near", 0.6, 0.5, error_of_images=0.1, architecture="small"),
        zeroed("far", 2.0, 0.5, error_of_images=0.1, architecture="small"),
    )
    assert said == [
        "near cannot be told from the untrained small: whether its weights bring anything to this dataset is not known by logme"
    ]


def maps(name: str, values: dict[int, float | None], pixels: float | None, **facts) -> Candidate:
    """A candidate with these scores at backbone.c2 to c5, whose objects have this size."""
    scores = {("logme", f"backbone.c{number}", "local"): value for number, value in values.items()}
    return candidate(name, scores, object_pixels=pixels, **facts)


EVERYWHERE = {2: 1.0, 3: 2.0, 4: 3.0, 5: 4.0}


@pytest.mark.parametrize(
    ("pixels", "layer"),
    [(1.0, "c3"), (16.0, "c3"), (22.0, "c3"), (23.0, "c4"), (32.0, "c4"), (128.0, "c4"), (5000.0, "c4")],
)
def test_the_map_on_which_an_object_spans_a_number_of_cells(pixels, layer):
    assert rule.SIZE_PER_STRIDE == 2.0
    assert rule.size_matched_layer([maps("a", EVERYWHERE, pixels)]) == f"backbone.{layer}"


def test_candidates_agree_on_one_map_that_all_have_trained():
    fine, coarse = maps("fine", EVERYWHERE, 16.0), maps("coarse", {4: 1.0, 5: 2.0}, 16.0)
    assert rule.size_matched_layer([fine]) == "backbone.c3"
    assert rule.size_matched_layer([fine, coarse]) == "backbone.c4"
    untrained = maps("untrained", EVERYWHERE, 16.0, untrained=frozenset({"backbone.c2", "backbone.c3"}))
    assert rule.size_matched_layer([fine, untrained]) == "backbone.c4"
    undefined = maps("undefined", {3: None, 4: 1.0}, 16.0)
    assert rule.size_matched_layer([fine, undefined]) == "backbone.c4"
    silent = maps("silent", {3: None, 4: None}, 16.0)
    assert rule.size_matched_layer([fine, silent]) == "backbone.c3"
    only_fine = maps("only fine", {3: 1.0}, 16.0)
    assert rule.size_matched_layer([coarse, only_fine]) is None
    assert rule.size_matched_layer([maps("finest", {2: 1.0, 5: 1.0}, 8.0)]) is None
    # the median of sizes, whoever comes first; who knows none has no say
    pool = [maps(str(n), EVERYWHERE, pixels) for n, pixels in enumerate((8.0, None, 32.0, 4000.0))]
    for arrival in itertools.permutations(pool):
        assert rule.size_matched_layer(list(arrival)) == "backbone.c4"
    assert rule.size_matched_layer([maps("a", EVERYWHERE, None)]) is None
    assert rule.size_matched_layer([]) is None


def test_a_ranking_by_the_size_of_the_objects():
    pool = [maps("a", EVERYWHERE, 15.0), maps("b", {2: 1.0, 3: 0.5, 4: 9.0}, 17.0)]
    ordering = order(pool, TARGET, RankBy(layer=rule.SIZE_MATCHED))
    assert (ordering.metric, ordering.layer, ordering.level) == ("logme", "backbone.c3", "local")
    assert ordering.chosen_by == "size of the objects"
    assert [row.value for row in ordering.rows] == [2.0, 0.5]
    named = order(pool, TARGET, RankBy(layer="backbone.c4"))
    assert (named.layer, named.chosen_by) == ("backbone.c4", "default rule")
    complete = order(pool, TARGET, RankBy("logme", rule.SIZE_MATCHED, "local"))
    assert (complete.layer, complete.chosen_by) == ("backbone.c3", "size of the objects")


def test_only_values_of_the_metric_that_orders_match():
    pool = [
        candidate("a", at("tlogme", 1.0, "backbone.c4") | at("logme", 1.0, "backbone.c3"), object_pixels=16.0)
    ]
    assert order(pool, TARGET, RankBy("tlogme", rule.SIZE_MATCHED)).layer == "backbone.c4"
    assert order(pool, TARGET, RankBy("logme", rule.SIZE_MATCHED)).layer == "backbone.c3"


def test_where_nothing_matches_the_default_order_is_taken_and_said():
    pool = [maps("a", EVERYWHERE, None)]
    ordering = order(pool, TARGET, RankBy(layer=rule.SIZE_MATCHED))
    assert (ordering.layer, ordering.chosen_by) == ("backbone.c4", "default rule")
    assert "backbone.c4 was chosen" in next(
        w.detail for w in ordering.warnings if w.code == "not_size_matched"
    )
    assert "not_size_matched" not in {w.code for w in order(pool, TARGET).warnings}


def test_it_is_the_default_and_one_constant_makes_it_so(monkeypatch):
    assert rule.DEFAULT_LAYER == rule.SIZE_MATCHED
    assert rule.default_layers() == ("backbone.c3", "backbone.c4")
    pool = [maps("a", EVERYWHERE, 16.0)]
    assert order(pool, TARGET).layer == "backbone.c3"
    assert order(pool, TARGET, RankBy(layer="backbone.c5")).layer == "backbone.c5"
    elsewhere = order([candidate("a", at("logme", 1.0, "neck.p4"), object_pixels=16.0)], TARGET)
    assert (elsewhere.layer, elsewhere.chosen_by) == ("neck.p4", "default rule")
    assert "not_size_matched" not in {w.code for w in elsewhere.warnings}
    monkeypatch.setattr(rule, "DEFAULT_LAYER", None)
    assert rule.default_layers() == ("backbone.c4",)
    assert order(pool, TARGET).layer == "backbone.c4"


def test_the_score_of_what_a_detector_has_to_learn_comes_first():
    pool = [
        candidate(n, at("tlogme", v) | at("detection_evidence_single", -v) | at("logme", v))
        for n, v in (("a", 1.0), ("b", 2.0))
    ]
    assert order(pool, TARGET).metric == "detection_evidence_single"
