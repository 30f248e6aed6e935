"""Pool-relative metrics and static baselines."""

from dataclasses import replace

import numpy as np
import pytest

from worker.metrics import (
    BASELINES,
    METRICS,
    FeatureSet,
    UnknownMetric,
    compare,
    pool_scores,
    score,
    static_scores,
    with_terms,
)

RELATIVE = [m.name for m in METRICS.values() if m.pool_relative]


def candidates(make, signals=(0.2, 1.0, 3.0)):
    names = with_terms(RELATIVE)
    return {f"c{i}": score(make(260, 12, 3, signal=s), names) for i, s in enumerate(signals)}


def test_relative_metrics_are_marked_and_cannot_be_scored_alone(make):
    assert RELATIVE == ["det_logme_like", "ncti", "etran"]
    for name, s in score(make(60, 8, 3), RELATIVE).items():
        assert s.value is None
        assert METRICS[name].terms[0] in s.undefined
        assert "pool_scores" in s.undefined


def test_the_formulas(make):
    scored = candidates(make)
    found = pool_scores(scored, RELATIVE)

    def scaled(name):
        v = np.array([c[name].value for c in scored.values()])
        return (v - v.min()) / (v.max() - v.min())

    expected = {
        "det_logme_like": scaled("u_logme") + scaled("iou_logme"),
        "ncti": scaled("ncti_separation") + scaled("ncti_accuracy") - (1 - scaled("ncti_compactness")),
        "etran": scaled("etran_energy") + scaled("etran_classification") + scaled("etran_regression"),
    }
    for name, values in expected.items():
        np.testing.assert_allclose([found[c][name].value for c in scored], values)
        assert found["c0"][name].notes == ("relative to a pool of 3 candidates",)


def test_the_score_changes_with_the_pool(make):
    scored = candidates(make)
    small = {c: scored[c] for c in ("c0", "c1")}
    assert (
        pool_scores(scored, ["ncti"])["c1"]["ncti"].value != pool_scores(small, ["ncti"])["c1"]["ncti"].value
    )


def test_a_candidate_without_a_term_is_left_out_and_says_so(make):
    scored = candidates(make)
    f = make(100, 12, 3)
    scored["short"] = score(f, with_terms(["etran"]))
    scored["boxless"] = score(FeatureSet(f.features, f.labels), with_terms(RELATIVE))
    found = pool_scores(scored, RELATIVE)
    assert found["c0"]["etran"].notes == ("relative to a pool of 3 candidates",)
    assert "use at least 200" in found["short"]["etran"].undefined
    assert found["short"]["ncti"].undefined == "its term ncti_separation was not scored"
    assert "no boxes" in found["boxless"]["det_logme_like"].undefined


def test_intervals_of_the_terms_give_intervals_of_the_whole(make):
    sets = {f"c{i}": make(260, 12, 3, signal=s) for i, s in enumerate((0.2, 1.0, 3.0))}
    names = with_terms(["ncti"])
    scored = {c: score(f, names, groups=8) for c, f in sets.items()}
    found = pool_scores(scored, ["ncti"])
    without = {
        c: {n: replace(s, value=s.interval.replicates[5]) for n, s in terms.items() if s.interval}
        for c, terms in scored.items()
    }
    assert found["c1"]["ncti"].interval.replicates[5] == pool_scores(without, ["ncti"])["c1"]["ncti"].value
    result = compare({c: f["ncti"] for c, f in found.items()}, "ncti")
    assert result.order[0] == "c2"
    scored["c0"] = score(sets["c0"], names)
    assert pool_scores(scored, ["ncti"])["c1"]["ncti"].interval is None


def test_a_pool_of_one_and_of_equals(make):
    scored = candidates(make, (1.0,))
    assert "no other candidate" in pool_scores(scored, ["ncti"])["c0"]["ncti"].undefined
    twins = {"a": scored["c0"], "b": scored["c0"]}
    found = pool_scores(twins, ["etran"])
    assert found["a"]["etran"].value == found["b"]["etran"].value == 1.5


def test_terms_come_before_what_needs_them():
    assert with_terms(["logme", "ncti"]) == [
        "logme",
        "ncti_separation",
        "ncti_accuracy",
        "ncti_compactness",
        "ncti",
    ]
    with pytest.raises(UnknownMetric):
        with_terms(["nope"])


def test_static_baselines():
    scores = static_scores({"parameters": 41_000_000, "coco_box_map": None})
    assert list(scores) == [name for name, baseline in BASELINES.items() if not baseline.rare]
    known = static_scores({"rf100_vl_ap": 57.1, "imagenet_top1": 75.1})
    assert known["static_rf100_vl_map"].value == 57.1
    assert known["static_imagenet_top1"].value == 75.1
    assert scores["static_parameters"].value == 41e6
    assert scores["static_coco_map"].value is None
    assert "no coco_box_map is known" in scores["static_coco_map"].undefined
