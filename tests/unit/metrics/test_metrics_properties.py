"""Laws of single metrics (hypothesis draws the data and the change); test_metrics_promises holds the table of all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_metrics import draw

from worker.metrics import METRICS, FeatureSet, score

SLOW = {"n_leep"}  # seconds a fit; tested by itself
ALL = [m.name for m in METRICS.values() if not m.pool_relative and m.name not in SLOW]
FIVE = ["logme", "logme_boxes", "h_score", "h_score_regularized", "transrate"]
# N < D, N = D, N > D, N >> D
sets = st.builds(
    lambda shape, seed, offset: draw(*shape, seed=seed, offset=offset),
    st.sampled_from([(25, 40, 3), (30, 30, 4), (60, 12, 5), (140, 6, 3)]),
    st.integers(0, 10_000),
    st.floats(-2, 2),
)
seeds = st.integers(0, 10_000)
quick = settings(max_examples=25, deadline=None)


def values(f, names):
    return {n: s.value for n, s in score(f, names).items()}


def same(a, b, names, rel=1e-7):
    first, second = values(a, names), values(b, names)
    for name in names:
        if first[name] is None or second[name] is None:
            assert first[name] is second[name], name
        else:
            assert second[name] == pytest.approx(first[name], rel=rel, abs=1e-9), name


def replace(f, x):
    return FeatureSet(x, f.labels, f.boxes, f.source_probabilities, f.image_ids)


@quick
@given(sets, seeds)
def test_order_of_objects(f, seed):
    same(f, f.rows(np.random.default_rng(seed).permutation(len(f.labels))), [*FIVE, "tlogme", "leep", "nce"])


@quick
@given(sets, seeds)
def test_names_of_classes(f, seed):
    new = np.random.default_rng(seed).permutation(20)[f.labels]
    same(f, FeatureSet(f.features, new, f.boxes, f.source_probabilities), [*FIVE, "leep", "nce"])


@quick
@given(sets, st.floats(0.01, 100))
def test_scale_of_features(f, factor):
    same(f, replace(f, f.features * factor), ["h_score", "h_score_regularized"])


@quick
@given(sets, seeds)
def test_rotation_of_features(f, seed):
    d = f.features.shape[1]
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    same(f, replace(f, f.features @ q), FIVE)


@quick
@given(sets, seeds)
def test_order_of_columns(f, seed):
    same(f, replace(f, f.features[:, np.random.default_rng(seed).permutation(f.features.shape[1])]), FIVE)


@quick
@given(sets, st.floats(-50, 50))
def test_shift_of_features(f, shift):
    same(f, replace(f, f.features + shift), ["h_score", "h_score_regularized", "transrate"], rel=1e-6)


@quick
@given(sets, seeds)
def test_affine_map_leaves_h_score(f, seed):
    rng = np.random.default_rng(seed)
    d = f.features.shape[1]
    a = np.eye(d) + 0.3 * rng.standard_normal((d, d)) / np.sqrt(d)
    same(f, replace(f, f.features @ a * 10.0 ** rng.uniform(-4, 4, d) + 5), ["h_score"], rel=1e-6)


@quick
@given(st.integers(0, 10_000))
def test_duplicate_columns_leave_h_score(seed):
    f = draw(90, 8, 4, seed=seed)
    doubled = replace(f, np.hstack([f.features, f.features[:, :3]]))
    same(f, doubled, ["h_score"])
    assert "span 8 of 11 dimensions" in score(doubled, ["h_score"])["h_score"].notes[0]


@quick
@given(sets)
def test_h_score_bounds(f):
    value = values(f, ["h_score"])["h_score"]
    if value is not None:
        assert -1e-9 <= value <= min(len(np.unique(f.labels)) - 1, f.features.shape[1]) + 1e-9


@quick
@given(sets)
def test_leep_and_nce_are_log_likelihoods(f):
    v = values(f, ["leep", "nce"])
    assert v["leep"] <= 0
    assert v["nce"] <= 0


@quick
@given(st.integers(0, 10_000))
def test_a_singleton_class_is_finite(seed):
    f = draw(60, 8, 4, seed=seed)
    labels = f.labels.copy()
    labels[labels == 3] = 0
    labels[5] = 3
    for name, s in score(
        FeatureSet(f.features, labels, f.boxes, f.source_probabilities), [*FIVE, "leep", "nce"]
    ).items():
        assert np.isfinite(s.value), name


@quick
@given(sets)
def test_same_input_same_bits(f):
    assert values(f, ALL) == values(f, ALL)
