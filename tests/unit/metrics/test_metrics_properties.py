"""What must not change a score, and what must (hypothesis draws the data and the change)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_metrics import draw

from worker.metrics import METRICS, FeatureSet, Options, score

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


CONVERGED = Options(logme_iterations=2000, logme_tolerance=1e-12)
clear = st.builds(lambda seed: draw(140, 6, 3, seed=seed, signal=2.0), st.integers(0, 10_000))


@quick
@given(sets, st.floats(0.01, 100))
def test_scale_of_features(f, factor):
    same(f, replace(f, f.features * factor), ["h_score", "h_score_regularized"])


@quick
@given(clear, st.floats(0.05, 20))
def test_scale_of_features_and_of_boxes_at_the_maximum(f, factor):
    """The published start (alpha = beta = 1) and stop know no scale, so the laws of LogME hold at the maximum."""
    base = score(f, ["logme", "logme_boxes"], options=CONVERGED)
    scaled = FeatureSet(f.features * factor, f.labels, f.boxes / factor)
    other = score(scaled, ["logme", "logme_boxes"], options=CONVERGED)
    assert other["logme"].value == pytest.approx(base["logme"].value, abs=1e-6)
    assert other["logme_boxes"].value - base["logme_boxes"].value == pytest.approx(np.log(factor), abs=1e-6)


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


def rotated(f, rng):
    q, _ = np.linalg.qr(rng.standard_normal((f.features.shape[1],) * 2))
    return replace(f, f.features @ q)


def mapped(f, rng):
    d = f.features.shape[1]
    return replace(f, f.features @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)) / np.sqrt(d)))


def shuffled(f, rng):
    return f.rows(rng.permutation(len(f.labels)))


CHANGES = {
    "rows": shuffled,
    "columns": lambda f, rng: replace(f, f.features[:, rng.permutation(f.features.shape[1])]),
    "names": lambda f, rng: FeatureSet(
        f.features, rng.permutation(30)[f.labels], f.boxes, f.source_probabilities
    ),
    "rotation": rotated,
    "shift": lambda f, rng: replace(f, f.features + rng.uniform(-3, 3)),
    "scale": lambda f, rng: replace(f, f.features * rng.uniform(0.1, 10)),
    "linear": mapped,
}
ALWAYS = ["rows", "columns", "names"]
UNCHANGED = {
    "u_logme": [*ALWAYS, "rotation"],
    "iou_logme": [*ALWAYS, "rotation"],
    "h_score_adjusted": [*ALWAYS, "rotation", "shift", "scale", "linear"],
    "transrate_weighted": [*ALWAYS, "rotation", "shift"],
    "parc": [*ALWAYS, "shift", "scale"],
    "gbc": [*ALWAYS, "rotation", "shift", "scale"],
    "sfda": [*ALWAYS, "shift"],
    "ncti_separation": [*ALWAYS, "rotation", "shift"],
    "ncti_accuracy": [*ALWAYS, "rotation", "shift"],
    "ncti_compactness": [*ALWAYS, "rotation", "shift"],
    "etran_energy": ALWAYS,
    "etran_classification": [*ALWAYS, "rotation", "shift"],
    "etran_regression": [*ALWAYS, "rotation", "scale", "linear"],
}


@pytest.mark.parametrize(("name", "change"), [(n, c) for n, changes in UNCHANGED.items() for c in changes])
@settings(max_examples=6, deadline=None)
@given(seed=seeds)
def test_what_leaves_the_other_metrics_alone(name, change, seed):
    f = draw(240, 10, 4, seed=seed)
    same(f, CHANGES[change](f, np.random.default_rng(seed)), [name], rel=1e-6)


@pytest.mark.parametrize(
    "name", ["transrate", "sfda", "etran_classification", "etran_energy", "ncti_separation"]
)
def test_scale_changes_what_it_is_said_to_change(name):
    f = draw(240, 10, 4)
    assert abs(values(f, [name])[name] - values(replace(f, f.features * 0.05), [name])[name]) > 1e-3
