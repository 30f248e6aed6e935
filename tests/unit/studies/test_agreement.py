"""Measures of agreement: equal to scipy's, to hand-computed cases, and undefined where there is nothing to say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from worker.studies.measures.agreement import (
    kendall,
    lost_at,
    pearson,
    regret_at,
    rel_at,
    spearman,
    weighted_tau,
)

SCIPY = {
    "pearson": (pearson, lambda a, b: stats.pearsonr(a, b).statistic),
    "spearman": (spearman, lambda a, b: stats.spearmanr(a, b).statistic),
    "kendall": (kendall, lambda a, b: stats.kendalltau(a, b).statistic),
    "weighted_tau": (weighted_tau, lambda a, b: stats.weightedtau(a, b).statistic),
}


def _columns(values, n: int):
    return arrays.arrays(np.float64, (2, n), elements=values)


# few different values, so that ties are everywhere; and free ones
TIED = st.integers(3, 9).flatmap(lambda n: _columns(st.integers(0, 3).map(float), n))
FREE = st.integers(3, 30).flatmap(lambda n: _columns(st.integers(-(10**6), 10**6).map(lambda v: v / 1000), n))


@pytest.mark.parametrize("name", SCIPY)
@settings(deadline=None, max_examples=150)
@given(pair=st.one_of(TIED, FREE))
def test_the_measures_are_scipys_with_and_without_ties(name, pair):
    ours, theirs = SCIPY[name]
    scores, truth = pair
    found = ours(scores[None], truth[None])[0]
    if np.ptp(scores) == 0 or np.ptp(truth) == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(theirs(truth, scores), abs=1e-9)


@pytest.mark.parametrize("name", SCIPY)
def test_rows_are_measured_independently(name):
    ours, _ = SCIPY[name]
    rng = np.random.default_rng(0)
    scores, truth = rng.normal(size=(2, 50, 7))
    together = ours(scores, truth)
    assert together == pytest.approx([ours(a[None], b[None])[0] for a, b in zip(scores, truth, strict=True)])


@pytest.mark.parametrize("name", SCIPY)
@settings(deadline=None, max_examples=50)
@given(pair=FREE)
def test_they_are_symmetric_and_odd(name, pair):
    ours, _ = SCIPY[name]
    scores, truth = pair
    found = ours(scores[None], truth[None])[0]
    assert np.allclose(ours(truth[None], scores[None])[0], found, equal_nan=True)
    # weights of the weighted tau follow the order, so turning one column round may weigh other pairs
    if name != "weighted_tau":
        assert np.allclose(ours(-scores[None], truth[None])[0], -found, equal_nan=True)


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1.0, 1e12, 1e300])
def test_pearson_does_not_depend_on_the_unit(scale):
    rng = np.random.default_rng(1)
    scores, truth = rng.normal(size=(2, 1, 8))
    assert pearson(scores * scale, truth)[0] == pytest.approx(pearson(scores, truth)[0], abs=1e-12)


def test_weighted_tau_by_hand():
    # truth 3 > 2 > 1 has ranks 0 1 2; the score swaps the two at the top.
    # by truth: weights of pairs (0,1) 1 + 1/2, (0,2) 1 + 1/3, (1,2) 1/2 + 1/3; the first disagrees
    # by score the ranks of the first two are exchanged, the weights of the pairs (0,2) and (1,2) with them
    total = 3 / 2 + 4 / 3 + 5 / 6
    by_hand = (4 / 3 + 5 / 6 - 3 / 2) / total
    assert weighted_tau(np.array([[2.0, 3.0, 1.0]]), np.array([[3.0, 2.0, 1.0]]))[0] == pytest.approx(by_hand)


def test_an_error_at_the_top_weighs_more_than_one_at_the_bottom():
    truth = np.array([[5.0, 4.0, 3.0, 2.0, 1.0]])
    top, bottom = np.array([[4.0, 5.0, 3.0, 2.0, 1.0]]), np.array([[5.0, 4.0, 3.0, 1.0, 2.0]])
    assert kendall(top, truth)[0] == kendall(bottom, truth)[0]
    assert weighted_tau(top, truth)[0] < weighted_tau(bottom, truth)[0]


def test_rel_and_regret_by_hand():
    truth = np.array([[0.2, 0.5, 0.4, 0.1]])
    scores = np.array([[9.0, 1.0, 8.0, 7.0]])
    assert [rel_at(k, scores, truth)[0] for k in (1, 2, 3)] == pytest.approx([0.4, 0.8, 0.8])
    assert [regret_at(k, scores, truth)[0] for k in (1, 2, 3)] == pytest.approx([0.6, 0.2, 0.2])
    assert [lost_at(k, scores, truth)[0] for k in (1, 2, 3)] == pytest.approx([0.3, 0.1, 0.1])
    for of in (rel_at, lost_at):
        assert np.isnan(of(4, scores, truth)[0]), "looking at all candidates says nothing"


def test_a_score_earns_nothing_by_not_deciding():
    truth = np.array([[0.2, 0.5, 0.4]])
    assert rel_at(1, np.array([[1.0, 1.0, 0.0]]), truth)[0] == pytest.approx(0.4)


def test_rel_needs_somebody_who_learned():
    assert np.isnan(rel_at(1, np.array([[1.0, 2.0]]), np.array([[0.0, 0.0]]))[0])
