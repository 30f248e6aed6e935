import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

from worker.metrics.jackknife import jackknife_interval
from worker.ranking.order import order
from worker.ranking.records import Candidate, Filters, RankBy, Scored, Target

TARGET = Target({"person": 300, "dog": 200})


def candidate(
    name: str,
    scores: dict[tuple[str, str, str], float | None] | None = None,
    *,
    error_of_images: float | None = 1e-6,
    **facts,
) -> Candidate:
    """error_of_images: standard error of every score over images, None: no interval."""
    made = tuple(
        Scored(*place, value, None, interval=interval(name, value, error_of_images))
        if value is not None
        else Scored(*place, None, "one category")
        for place, value in (scores or {}).items()
    )
    return Candidate(id=f"ckpt_{name}", name=name, scores=made, **facts)


def interval(name: str, value: float, std: float | None, groups: int = 20):
    if std is None or not math.isfinite(value):
        return None
    draws = np.random.default_rng(list(name.encode())).standard_normal(groups)
    draws -= draws.mean()
    scale = std / np.sqrt((groups - 1) / groups * np.square(draws).sum())
    return jackknife_interval(value, value + scale * draws, 0.95)


def at(metric: str, value: float | None, layer: str = "backbone.c4", level: str = "local") -> dict:
    return {(metric, layer, level): value}


def test_nothing_to_order_is_an_empty_order():
    ordering = order([], TARGET)
    assert (ordering.rows, ordering.metric, ordering.left_out) == ((), None, ())


def test_higher_is_better_whatever_the_order_of_arrival():
    pool = [candidate(name, at("tlogme", value)) for name, value in {"a": 0.1, "b": -2.0, "c": 7.5}.items()]
    answers = {tuple(row.name for row in order(list(p), TARGET).rows) for p in itertools.permutations(pool)}
    assert answers == {("c", "a", "b")}
    assert [row.rank for row in order(pool, TARGET).rows] == [1, 2, 3]


def test_equal_values_share_a_rank_and_the_next_is_skipped():
    pool = [
        candidate(name, at("tlogme", value))
        for name, value in {"a": 1.0, "b": 1.0, "c": 0.0, "d": 2.0}.items()
    ]
    rows = order(pool, TARGET).rows
    assert [(row.name, row.rank) for row in rows] == [("d", 1), ("a", 2), ("b", 2), ("c", 4)]
    assert rows[1].near == ("ckpt_b",)


def test_values_within_their_errors_are_a_tie_and_a_warning_but_keep_their_ranks():
    pool = [
        candidate(name, at("tlogme", value), error_of_images=0.01)
        for name, value in {"a": 1.0, "b": 0.999, "c": 0.0}.items()
    ]
    ordering = order(pool, TARGET)
    assert [row.rank for row in ordering.rows] == [1, 2, 3]
    assert ordering.groups == (("ckpt_a", "ckpt_b"), ("ckpt_c",))
    assert ordering.ties == (("ckpt_a", "ckpt_b"),)
    assert [row.near for row in ordering.rows] == [("ckpt_b",), ("ckpt_a",), ()]
    assert [row.group for row in ordering.rows] == [1, 1, 2]
    assert "a, b" in next(w.detail for w in ordering.warnings if w.code == "near_tie")
    assert ordering.summary.startswith("candidates 1 and 2 cannot be told apart; ")


def test_the_same_difference_is_clear_where_the_errors_are_shared():
    """Replicates that move together cancel: half a standard error apart, and still told apart."""
    shared = interval("x", 0.0, 0.01).replicates
    pool = [
        Candidate(
            name,
            name,
            (
                Scored(
                    "tlogme",
                    "backbone.c4",
                    "local",
                    value,
                    interval=jackknife_interval(value, value + np.array(shared), 0.95),
                ),
            ),
        )
        for name, value in {"a": 1.0, "b": 0.995}.items()
    ]
    ordering = order(pool, TARGET)
    assert (ordering.ties, ordering.groups) == ((), (("a",), ("b",)))
    assert ordering.summary.startswith("each candidate can be told apart from the next")


def test_the_chance_of_being_best_sums_to_one_and_falls_with_the_value():
    pool = [
        candidate(name, at("tlogme", value), error_of_images=0.1)
        for name, value in {"a": 1.0, "b": 0.95, "c": 0.0}.items()
    ]
    chances = [row.score_chance_of_highest for row in order(pool, TARGET).rows]
    assert sum(chances) == pytest.approx(1.0)
    assert chances[0] > chances[1] > 0.1
    assert chances[2] < 0.01
    assert chances == [row.score_chance_of_highest for row in order(list(reversed(pool)), TARGET).rows]


def test_a_checkpoint_that_is_there_twice_shares_its_chance():
    twice = [
        dataclasses.replace(candidate("a", at("tlogme", 1.0), error_of_images=0.1), id=id)
        for id in ("x", "y")
    ]
    rows = order([*twice, candidate("b", at("tlogme", 0.9), error_of_images=0.1)], TARGET).rows
    assert rows[0].score_chance_of_highest == pytest.approx(rows[1].score_chance_of_highest)
    assert sum(row.score_chance_of_highest for row in rows) == pytest.approx(1.0)


def test_without_intervals_nothing_is_invented():
    pool = [
        candidate(name, at("tlogme", value), error_of_images=None)
        for name, value in {"a": 1.0, "b": 1.0, "c": 0.9999999}.items()
    ]
    ordering = order(pool, TARGET)
    assert (ordering.groups, ordering.ties) == ((), (("ckpt_a", "ckpt_b"),))
    assert {(row.interval, row.score_chance_of_highest, row.group) for row in ordering.rows} == {
        (None, None, None)
    }
    assert "not known" in ordering.summary
    assert "scored without one" in next(w.detail for w in ordering.warnings if w.code == "no_interval")


def test_one_without_interval_is_named_with_its_reason_and_the_others_are_compared():
    none = candidate("b", at("tlogme", 0.999), error_of_images=None)
    score = dataclasses.replace(
        none.scores[0], notes=("no interval: 3 images or groups; at least 5 are needed",)
    )
    pool = [
        candidate("a", at("tlogme", 1.0)),
        dataclasses.replace(none, scores=(score,)),
        candidate("c", at("tlogme", 0.5)),
    ]
    ordering = order(pool, TARGET)
    assert ordering.groups == (("ckpt_a",), ("ckpt_c",))
    assert [row.score_chance_of_highest for row in ordering.rows] == [1.0, None, 0.0]
    assert "3 images or groups" in next(w.detail for w in ordering.warnings if w.code == "no_interval")
    assert "nothing is known of 2, without interval" in ordering.summary


def test_an_interval_over_other_groups_counts_as_none():
    odd = Scored("tlogme", "backbone.c4", "local", 0.9, interval=interval("odd", 0.9, 0.1, groups=7))
    pool = [*(candidate(name, at("tlogme", 1.0)) for name in "ab"), Candidate("odd", "odd", (odd,))]
    ordering = order(pool, TARGET)
    assert ordering.groups == (("ckpt_a", "ckpt_b"),)
    assert "other groups of images" in next(w.detail for w in ordering.warnings if w.code == "no_interval")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "no candidate has a place"),
        ({"a": 1.0}, "only one candidate has a place"),
        (
            {"a": 9.0, "b": 1.0, "c": 0.99, "d": 0.98},
            "candidates 2 to 4 cannot be told apart; a most probably has the highest score, 100%",
        ),
        (
            {"a": 9.0, "b": 8.99, "c": 1.0, "d": 0.99},
            "candidates 1 and 2 cannot be told apart; candidates 3 and 4 cannot",
        ),
    ],
)
def test_the_order_in_a_sentence(values, said):
    pool = [candidate(name, at("tlogme", value), error_of_images=0.05) for name, value in values.items()]
    assert order(pool, TARGET).summary.startswith(said)


def test_two_candidates_far_apart_are_no_tie():
    pool = [candidate("a", at("tlogme", 1.0)), candidate("b", at("tlogme", 0.9))]
    assert order(pool, TARGET).ties == ()


def test_the_default_rule_takes_the_first_metric_defined_for_everyone():
    pool = [
        candidate("a", at("tlogme", 5.0) | at("logme_boxes", 0.1)),
        candidate("b", at("tlogme", None) | at("logme_boxes", 0.2)),
    ]
    ordering = order(pool, TARGET)
    assert (ordering.metric, ordering.layer, ordering.level) == ("logme_boxes", "backbone.c4", "local")
    assert [row.name for row in ordering.rows] == ["b", "a"]
    assert ordering.chosen_by == "default rule"


def test_the_default_rule_falls_back_to_most_and_says_who_is_left_out():
    pool = [
        candidate("a", at("tlogme", 5.0)),
        candidate("b", at("tlogme", 4.0)),
        candidate("c", at("logme", 9.0)),
    ]
    ordering = order(pool, TARGET)
    assert [row.name for row in ordering.rows] == ["a", "b"]
    (out,) = ordering.left_out
    assert (out.name, out.code) == ("c", "no_score")
    assert "tlogme" in out.reason


def test_the_default_place_comes_before_the_metric():
    pool = [
        candidate(
            "a",
            at("tlogme", 1.0, "backbone.c5") | at("logme", 1.0) | at("tlogme", 1.0, "backbone.c4", "global"),
        )
    ]
    ordering = order(pool, TARGET)
    assert (ordering.metric, ordering.layer, ordering.level) == ("logme", "backbone.c4", "local")


def test_a_failed_candidate_has_no_say_in_the_metric():
    pool = [candidate("a", at("tlogme", 1.0)), candidate("b", error="the file is not a detector")]
    ordering = order(pool, TARGET)
    assert ordering.metric == "tlogme"
    assert [(out.code, out.reason) for out in ordering.left_out] == [("failed", "the file is not a detector")]


def test_what_is_asked_is_kept_even_where_it_is_undefined():
    pool = [candidate("a", at("tlogme", None) | at("logme", 3.0)), candidate("b", at("tlogme", 2.0))]
    ordering = order(pool, TARGET, RankBy("tlogme", "backbone.c4", "local"))
    assert [row.name for row in ordering.rows] == ["b"]
    assert ordering.left_out[0].code == "undefined"
    assert "one category" in ordering.left_out[0].reason
    assert ordering.chosen_by == "request"


def test_half_a_request_is_completed_by_the_rule():
    pool = [candidate("a", at("logme", 1.0, "neck.p4") | at("tlogme", 1.0))]
    ordering = order(pool, TARGET, RankBy(metric="logme"))
    assert (ordering.metric, ordering.layer, ordering.level) == ("logme", "neck.p4", "local")


def test_a_request_nobody_can_answer_leaves_everyone_out_with_the_reason():
    ordering = order([candidate("a", at("logme", 1.0))], TARGET, RankBy(metric="leep"))
    assert (ordering.rows, ordering.metric) == ((), None)
    assert "metric leep" in ordering.left_out[0].reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_undefined(value):
    ordering = order([candidate("a", at("tlogme", value)), candidate("b", at("tlogme", 0.0))], TARGET)
    assert [row.name for row in ordering.rows] == ["b"]
    assert ordering.left_out[0].code == "undefined"


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        (Filters(max_parameters=99), "100 parameters, and at most 99"),
        (Filters(max_memory_bytes=10), "bytes of memory are not known"),
        (Filters(max_ms_per_image=1.5), "2.0 ms per image, and at most 1.5"),
        (
            Filters(licences=("MIT", "BSD-3-Clause")),
            "its licence is AGPL-3.0; allowed are: MIT, BSD-3-Clause",
        ),
        (Filters(licences=()), "allowed are: none"),
    ],
)
def test_filters_leave_out_with_the_reason(filters, reason):
    kept = candidate(
        "kept",
        at("logme", 1.0),
        parameters=1,
        peak_memory_bytes=1,
        ms_per_image=0.1,
        licence=" mit",
    )
    out = candidate("out", at("tlogme", 9.0), parameters=100, ms_per_image=2.0, licence="AGPL-3.0")
    ordering = order([out, kept], TARGET, filters=filters)
    assert [row.name for row in ordering.rows] == ([] if filters.licences == () else ["kept"])
    assert ordering.left_out[0].code == "filtered"
    assert reason in ordering.left_out[0].reason


def test_a_limit_that_is_met_exactly_is_kept():
    ordering = order(
        [candidate("a", at("tlogme", 1.0), parameters=100)], TARGET, filters=Filters(max_parameters=100)
    )
    assert len(ordering.rows) == 1


def test_an_unknown_licence_does_not_pass_a_licence_filter():
    ordering = order([candidate("a", at("tlogme", 1.0))], TARGET, filters=Filters(licences=("MIT",)))
    assert "not known" in ordering.left_out[0].reason


def test_static_baselines_are_ranked_among_the_ordered_ones():
    pool = [
        candidate("small", at("tlogme", 3.0), parameters=1, coco_box_map=0.2),
        candidate("large", at("tlogme", 2.0), parameters=9),
        candidate("middle", at("tlogme", 1.0), parameters=5, coco_box_map=0.4),
        candidate("failed", error="no", parameters=99, coco_box_map=0.9),
    ]
    ranks = {row.name: dict(row.static_ranks) for row in order(pool, TARGET).rows}
    assert ranks == {
        "small": {"parameters": 3, "coco_box_map": 2},
        "large": {"parameters": 1, "coco_box_map": None},
        "middle": {"parameters": 2, "coco_box_map": 1},
    }


@pytest.mark.parametrize("figure", ["imagenet_top1", "rf100_vl_ap"])
def test_a_rare_figure_is_a_baseline_where_a_candidate_has_it(figure):
    pool = [
        candidate("has", at("tlogme", 1.0), parameters=1, **{figure: 57.1}),
        candidate("lacks", at("tlogme", 2.0), parameters=9),
    ]
    ordering = order(pool, TARGET)
    assert list(ordering.static) == ["parameters", "coco_box_map", figure]
    assert {row.name: row.static_ranks[figure] for row in ordering.rows} == {"has": 1, "lacks": None}


def test_untrained_layers_lose_against_trained_ones_and_are_warned_of():
    scores = at("tlogme", 1.0) | at("tlogme", 1.0, "backbone.c5")
    pool = [candidate(name, scores, untrained=frozenset({"backbone.c4"})) for name in "ab"]
    assert order(pool, TARGET).layer == "backbone.c5"
    asked = order(pool, TARGET, RankBy(layer="backbone.c4"))
    assert "untrained_layer" in {warning.code for warning in asked.warnings}


@pytest.mark.parametrize(
    ("objects", "codes"),
    [
        ({"a": 99}, {"few_objects", "single_class"}),
        ({"a": 100, "b": 4}, {"rare_classes"}),
        ({"a": 100, "b": 5, "c": 0}, {"absent_classes"}),
        ({"a": 100, "b": 5}, set()),
    ],
)
def test_warnings_about_the_target_data(objects, codes):
    pool = [candidate("a", at("tlogme", 1.0)), candidate("b", at("tlogme", 0.0))]
    assert {warning.code for warning in order(pool, Target(objects)).warnings} == codes


def test_metrics_that_grow_with_width_are_warned_of():
    pool = [candidate("a", at("h_score", 1.0)), candidate("b", at("h_score", 0.0))]
    assert [warning.code for warning in order(pool, TARGET).warnings] == ["width_bound"]


def test_an_ordering_is_plain_json():
    pool = [candidate("a", at("tlogme", 1.0), parameters=3), candidate("b", error="no")]
    json.dumps(dataclasses.asdict(order(pool, TARGET)), allow_nan=False)


def test_nothing_given_is_changed_and_the_same_scores_give_the_same_order():
    pool = [candidate("b", at("tlogme", 1.0)), candidate("a", at("tlogme", 1.0))]
    assert order(pool, TARGET) == order(list(reversed(pool)), TARGET)
    assert [one.name for one in pool] == ["b", "a"]
