"""How far two orders agree: against scipy, with an interval over candidates."""

import numpy as np
import pytest
from scipy import stats

from worker.studies.measures.two_orders import agreement_of


def test_the_measures_are_those_of_scipy_over_candidates_in_both() -> None:
    rng = np.random.default_rng(0)
    first = {f"c{i}": float(v) for i, v in enumerate(rng.normal(size=9))}
    second = {name: value + float(rng.normal()) for name, value in first.items()} | {"other": 1.0}
    first["alone"] = 2.0
    found = agreement_of(first, second)
    both = [f"c{i}" for i in range(9)]
    a, b = [first[name] for name in both], [second[name] for name in both]
    assert (found["n"], found["only_one"]) == (9, ["alone", "other"])
    for name, truth in (("kendall", stats.kendalltau(a, b)), ("spearman", stats.spearmanr(a, b))):
        one = found["measures"][name]
        assert one["value"] == pytest.approx(truth.statistic)
        assert one["low"] < one["value"] < one["high"]
    assert agreement_of(first, second) == found


def test_what_has_no_value_says_why() -> None:
    few = agreement_of({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0})
    assert few["measures"]["kendall"]["value"] is None
    assert "at least 3" in few["measures"]["kendall"]["undefined"]
    flat = agreement_of({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "b": 2.0, "c": 3.0})
    assert "one place" in flat["measures"]["spearman"]["undefined"]
