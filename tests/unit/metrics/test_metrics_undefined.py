"""Where a metric has no value it says why; what is harmless stays harmless; the caller's arrays stay as they were."""

import numpy as np
import pytest

from worker.metrics import METRICS, FeatureSet, InvalidFeatureSet, UnknownMetric, score

OF_FEATURES = [
    m.name for m in METRICS.values() if "features" in m.needs and m.rows == "objects" and not m.pool_relative
]
OF_LABELS = [m.name for m in METRICS.values() if "labels" in m.needs and not m.pool_relative]
FIVE = ["logme", "logme_boxes", "h_score", "h_score_regularized", "transrate"]


def reasons(features, names):
    return {name: s.undefined for name, s in score(features, names).items()}


def assert_undefined(features, names, words):
    for name, s in score(features, names).items():
        assert s.value is None, name
        assert words in s.undefined, (name, s.undefined)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_features(make, bad):
    f = make(60, 8, 3)
    x = f.features.copy()
    x[7, 2] = bad
    x[9, 1] = bad
    assert_undefined(
        FeatureSet(x, f.labels, f.boxes, f.source_probabilities),
        OF_FEATURES,
        "2 of 60 objects hold NaN or infinity",
    )


@pytest.mark.parametrize("factor", [1e200, 1e-200])
def test_features_beyond_double_precision(make, factor):
    f = make(60, 8, 3)
    assert_undefined(FeatureSet(f.features * factor, f.labels, f.boxes), FIVE, "range of double precision")


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (30, 0)])
def test_too_few_objects_or_columns(shape):
    n, d = shape
    f = FeatureSet(np.ones((n, d)), np.zeros(n, int), np.ones((n, 4)), np.ones((n, 1)))
    for name, s in score(f, list(METRICS)).items():
        assert s.value is None, name
        assert s.undefined, name


def test_single_class(make):
    f = make(60, 8, 3)
    f = FeatureSet(f.features, np.full(60, 4), f.boxes, f.source_probabilities)
    names = [n for n in OF_LABELS if n not in ("tlogme", "u_logme")]
    assert_undefined(f, names, "only one class (4)")
    assert "read logme_boxes" in reasons(f, ["tlogme"])["tlogme"]
    assert score(f, ["logme_boxes"])["logme_boxes"].value is not None


@pytest.mark.parametrize("n", [10, 20, 21])
def test_h_score_without_more_objects_than_dimensions(make, n):
    assert_undefined(make(n, 20, 3), ["h_score"], "C - 1 = 2 whatever the features")


def test_h_score_with_one_object_more(make):
    assert score(make(22, 20, 3), ["h_score"])["h_score"].value < 2


def test_no_boxes_and_no_source_head(make):
    f = make(60, 8, 3)
    bare = FeatureSet(f.features, f.labels)
    assert_undefined(
        bare, [m.name for m in METRICS.values() if "boxes" in m.needs and not m.pool_relative], "no boxes"
    )
    assert_undefined(
        bare,
        [m.name for m in METRICS.values() if "source_probabilities" in m.needs],
        "no source probabilities",
    )


def test_useless_boxes(make):
    f = make(60, 8, 3)
    nan = f.boxes.copy()
    nan[3] = np.nan
    assert_undefined(
        FeatureSet(f.features, f.labels, nan), ["logme_boxes", "tlogme"], "1 of 60 boxes hold NaN"
    )
    assert score(FeatureSet(f.features, f.labels, nan), ["logme"])["logme"].value is not None
    zero = f.boxes.copy()
    zero[:, 1] = 0
    assert_undefined(FeatureSet(f.features, f.labels, zero), ["logme_boxes"], "y1 is 0 for every box")


@pytest.mark.parametrize("shape", [(60, 8, 3), (20, 40, 3)])
def test_boxes_beyond_double_precision(make, shape):
    f = make(*shape)
    for factor in (1e160, 1e200):
        huge = FeatureSet(f.features, f.labels, f.boxes * factor)
        assert_undefined(huge, ["logme_boxes", "u_logme"], "range of double precision")


def test_boxes_in_pixels_are_noted(make):
    f = make(60, 8, 3)
    s = score(FeatureSet(f.features, f.labels, f.boxes * 800), ["logme_boxes"])["logme_boxes"]
    assert "boxes are not within [0, 1]" in s.notes[0]


@pytest.mark.parametrize(
    ("theta", "words"),
    [
        (np.full((60, 3), np.nan), "NaN"),
        (np.full((60, 3), -1 / 3), "negative"),
        (np.full((60, 3), 0.5), "sum to 1"),
        (np.zeros((60, 3)), "sum to 1"),
        (np.empty((60, 0)), "no columns"),
    ],
)
def test_useless_source_probabilities(make, theta, words):
    f = make(60, 8, 3)
    assert_undefined(FeatureSet(f.features, f.labels, None, theta), ["leep", "nce"], words)


def test_source_class_that_never_fires(make):
    f = make(60, 8, 3)
    padded = np.hstack([f.source_probabilities, np.zeros((60, 2))])
    a = score(f, ["leep", "nce"])
    b = score(FeatureSet(f.features, f.labels, None, padded), ["leep", "nce"])
    assert {n: s.value for n, s in a.items()} == {n: s.value for n, s in b.items()}


@pytest.mark.parametrize("value", [0.0, 2.5, 0.1, 1e6 / 3])
@pytest.mark.parametrize("shape", [(60, 8), (10, 30)])
def test_features_that_do_not_vary(shape, value):
    n, d = shape
    f = FeatureSet(np.full((n, d), value), np.arange(n) % 3, np.random.default_rng(0).random((n, 4)))
    for name, s in score(f, ["h_score", "h_score_regularized", "transrate"]).items():
        assert s.value is None, name
        assert "same features" in s.undefined or "whatever the features" in s.undefined
    s = score(f, ["logme"])["logme"]
    assert (s.value is None) == (value == 0.0)


def test_absent_class_ids_are_ignored_and_reported(make):
    f = make(120, 8, 4)
    sparse = FeatureSet(f.features, np.array([1, 2, 5, 9])[f.labels], f.boxes, f.source_probabilities)
    a, b = score(f, list(METRICS)), score(sparse, list(METRICS))
    for name in [m.name for m in METRICS.values() if m.rows == "objects"]:
        assert a[name].undefined == b[name].undefined
        if a[name].value is not None:
            assert b[name].value == pytest.approx(a[name].value, rel=1e-12)
        assert "6 class ids without objects were ignored: 0, 3, 4, 6, 7, 8" in b[name].notes
        assert not any("without objects" in note for note in a[name].notes)


def test_enormous_class_ids():
    rng = np.random.default_rng(0)
    f = FeatureSet(rng.random((50, 5)), np.where(np.arange(50) % 2, 3, 10**15))
    s = score(f, ["logme", "h_score"])
    assert s["logme"].value is not None
    assert "999999999999999 class ids" in s["logme"].notes[0]


def test_perfect_fit_is_capped_and_said():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    x = np.hstack([np.eye(3)[labels], rng.standard_normal((90, 5))])
    s = score(FeatureSet(x, labels), ["logme"])["logme"]
    assert np.isfinite(s.value)
    assert "was capped" in s.notes[0]


@pytest.mark.parametrize("shape", [(80, 10), (20, 40)])
def test_constant_columns(make, shape):
    f = make(*shape, 3)
    zeros = FeatureSet(np.hstack([f.features, np.zeros((shape[0], 2))]), f.labels, f.boxes)
    a, b = score(f, FIVE), score(zeros, FIVE)
    for name in ("logme", "logme_boxes", "transrate"):
        assert b[name].value == pytest.approx(a[name].value, rel=1e-9), name
    if shape[0] > shape[1]:
        assert b["h_score"].value == pytest.approx(a["h_score"].value, rel=1e-9)
        assert b["h_score"].notes == ("2 constant feature columns were left out",)


def test_callers_arrays_are_never_changed(make):
    for shape in [(80, 10, 3), (20, 40, 3), (300, 12, 3)]:
        f = make(*shape)
        arrays = (f.features, f.labels, f.boxes, f.source_probabilities, f.image_ids)
        copies = [a.copy() for a in arrays]
        for a in arrays:
            a.setflags(write=False)
        score(f, list(METRICS))
        for a, b in zip(arrays, copies, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"features": np.ones(3), "labels": np.zeros(3, int)}, "features must have shape"),
        ({"features": np.ones((3, 2), complex), "labels": np.zeros(3, int)}, "real numbers"),
        ({"features": np.array([["a"]]), "labels": np.zeros(1, int)}, "real numbers"),
        ({"features": np.ones((3, 2)), "labels": np.zeros(4, int)}, "labels must have shape"),
        ({"features": np.ones((3, 2)), "labels": np.zeros(3)}, "integer class ids"),
        ({"features": np.ones((3, 2)), "labels": np.array([0, -1, 1])}, "1 are negative"),
        (
            {"features": np.ones((3, 2)), "labels": np.zeros(3, int), "boxes": np.ones((3, 5))},
            "boxes must have shape",
        ),
        (
            {"features": np.ones((3, 2)), "labels": np.zeros(3, int), "image_ids": np.ones(2)},
            "image_ids must have",
        ),
        (
            {
                "features": np.ones((3, 2)),
                "labels": np.zeros(3, int),
                "source_probabilities": np.ones((2, 5)),
            },
            "source_probabilities must have shape",
        ),
    ],
)
def test_arrays_that_cannot_be_meant(arrays, words):
    with pytest.raises(InvalidFeatureSet, match=words):
        FeatureSet(**arrays)


def test_unknown_metric_lists_the_known(make):
    with pytest.raises(UnknownMetric) as caught:
        score(make(10, 3, 2), ["logme", "lgome"])
    assert "'lgome'" in str(caught.value)
    assert "tlogme" in str(caught.value)
