"""The metrics beyond the published system's five, against plain transcriptions."""

import numpy as np
import plain_metrics as plain
import pytest

from worker.metrics import FeatureSet, Options, score
from worker.metrics.gbc import GbcOptions
from worker.metrics.iou_logme import predicted_boxes
from worker.metrics.n_leep import NLeepOptions
from worker.metrics.options import DEFAULTS
from worker.metrics.parc import ParcOptions
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets

# N < D, N = D, N > D with D above and below 64 components, many classes
SHAPES = [(60, 90, 4), (70, 70, 3), (150, 80, 4), (300, 12, 5), (260, 20, 20)]


def value(f, name, *methods):
    result = score(f, [name], options=Options(methods=methods))[name]
    assert result.undefined is None, result.undefined
    return result.value


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_plain_transcriptions(make, shape):
    f = make(*shape, signal=0.5)
    x, y, b = f.features, f.labels, f.boxes
    close = {"rel": 1e-7, "abs": 1e-9}
    assert value(f, "u_logme") == pytest.approx(plain.logme(x, plain.unified(y, b)), **close)
    assert value(f, "iou_logme") == pytest.approx(plain.iou(plain.posterior_boxes(x, b), b).mean(), rel=1e-6)
    assert value(f, "sfda") == pytest.approx(plain.sfda(x, y), rel=1e-6)
    assert value(f, "parc") == pytest.approx(plain.parc(x, y), rel=1e-6)
    separation, accuracy, variability = plain.ncti_terms(x, y)
    assert value(f, "ncti_separation") == pytest.approx(separation, rel=1e-5)
    assert value(f, "ncti_accuracy") == pytest.approx(accuracy, rel=1e-5)
    assert value(f, "ncti_compactness") == pytest.approx(-variability, rel=1e-5)
    assert value(f, "etran_classification") == pytest.approx(plain.etran_classification(x, y), **close)


@pytest.mark.parametrize("shape", [(150, 80, 4), (300, 12, 5), (64, 60, 2)], ids=str)
def test_metrics_that_need_more_objects_than_dimensions(make, shape):
    f = make(*shape, signal=0.5)
    n, d, c = shape
    h = plain.h_score(f.features, f.labels)
    adjusted = (c - 1) * (1 - (1 - h / (c - 1)) * (n - 1) / (n - 1 - d))
    assert value(f, "h_score_adjusted") == pytest.approx(adjusted, rel=1e-7, abs=1e-9)
    assert value(f, "etran_regression") == pytest.approx(
        plain.etran_regression(f.features, f.boxes), rel=1e-6
    )
    assert value(f, "gbc") == pytest.approx(plain.gbc(f.features, f.labels), rel=1e-6)


def test_etran_energy_is_the_mean_of_the_lowest_half_percent(make):
    f = make(650, 9, 3)
    assert value(f, "etran_energy") == pytest.approx(plain.etran_energy(f.features), rel=1e-12)
    for stored in (np.float16, np.float32):
        x = (f.features * 3).astype(stored)
        assert value(FeatureSet(x, f.labels), "etran_energy") == pytest.approx(
            plain.etran_energy(x.astype(np.float64)), rel=1e-12
        )
    low = f.features.copy()
    low[3, 2] = -np.inf
    assert (
        "1 of 650 objects hold NaN"
        in score(FeatureSet(low, f.labels), ["etran_energy"])["etran_energy"].undefined
    )
    assert "use at least 200" in score(make(199, 9, 3), ["etran_energy"])["etran_energy"].undefined


def test_transrate_weights_the_classes_by_their_objects(make):
    f = make(200, 10, 4)
    z = f.features - f.features.mean(axis=0)
    expected = plain.rate(z) - sum((f.labels == c).mean() * plain.rate(z[f.labels == c]) for c in range(4))
    assert value(f, "transrate_weighted") == pytest.approx(expected, rel=1e-9)


def test_n_leep_is_leep_of_the_mixture(make):
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    f = make(400, 30, 3)
    scores = PCA(n_components=0.8, svd_solver="full").fit_transform(f.features)
    theta = GaussianMixture(n_components=15, random_state=0).fit(scores).predict_proba(scores)
    first = value(f, "n_leep")
    assert first == pytest.approx(plain.leep(theta, f.labels), rel=1e-4)
    assert value(f, "n_leep") == first
    assert value(f, "n_leep", NLeepOptions(seed=1)) != first
    assert "use at least 30" in score(f.rows(np.arange(29)), ["n_leep"])["n_leep"].undefined


def test_n_leep_knows_more_than_chance(make):
    f = make(400, 10, 3, signal=3.0)
    shuffled = FeatureSet(f.features, np.random.default_rng(0).permutation(f.labels))
    assert value(f, "n_leep") > value(shuffled, "n_leep") + 0.3


def test_predicted_boxes_are_the_ridge_solution(make):
    for shape in [(60, 12, 3), (20, 40, 3)]:
        f = make(*shape)
        found = predicted_boxes(Prepared(f.features, DEFAULTS), Targets.of(f))
        np.testing.assert_allclose(found, plain.posterior_boxes(f.features, f.boxes), atol=1e-7)


def test_u_logme_with_one_class_is_logme_boxes(make):
    f = make(60, 8, 3)
    one = FeatureSet(f.features, np.full(60, 2), f.boxes)
    assert value(one, "u_logme") == pytest.approx(value(one, "logme_boxes"), rel=1e-12)


def test_u_logme_leaves_out_columns_of_zeros(make):
    f = make(60, 8, 3)
    boxes = f.boxes.copy()
    boxes[f.labels == 1, 0] = 0.0
    result = score(FeatureSet(f.features, f.labels, boxes), ["u_logme"])["u_logme"]
    assert result.notes == ("1 of 12 target columns are 0 throughout and were left out",)


@pytest.mark.parametrize("power", [-8, 0, 8])
def test_classes_of_one_object_or_of_equal_ones_have_the_least_variance(make, power):
    f = make(60, 8, 3)
    alone = f.labels.copy()
    alone[0] = 9
    twice = f.features.copy()
    twice[f.labels == 0] = twice[f.labels == 0][0]
    for x, labels in ((f.features, alone), (twice, f.labels)):
        found = score(FeatureSet(x * 10.0**power, labels), ["gbc"])["gbc"]
        assert found.value == pytest.approx(plain.gbc(x, labels), rel=1e-6, abs=1e-12)
        assert any("1 classes hardly vary in some component" in note for note in found.notes)
    spherical = score(f, ["gbc"], options=Options(methods=(GbcOptions(covariance="spherical"),)))["gbc"]
    assert spherical.value != value(f, "gbc")


def test_boxes_without_area_have_no_overlap(make):
    f = make(60, 8, 3)
    boxes = f.boxes.copy()
    boxes[7, 2] = boxes[7, 0]
    assert (
        "1 of 60 boxes have no area"
        in score(FeatureSet(f.features, f.labels, boxes), ["iou_logme"])["iou_logme"].undefined
    )


def test_sfda_says_when_it_is_saturated(make):
    result = score(make(40, 90, 4, signal=5.0), ["sfda"])["sfda"]
    assert "saturated" in result.notes[0]


def test_parc_samples_large_sets_the_same_way_every_time(make):
    f = make(120, 10, 3)
    part = score(f, ["parc"], options=Options(methods=(ParcOptions(objects=50),)))["parc"]
    assert part.notes == ("50 of 120 objects were compared",)
    assert part.value == value(f, "parc", ParcOptions(objects=50))
    assert part.value != value(f, "parc", ParcOptions(objects=50, seed=1))
    assert part.value == pytest.approx(value(f, "parc"), abs=15)


def test_parc_of_features_in_one_direction(make):
    f = make(60, 1, 3)
    assert "at least 2 principal components" in score(f, ["parc"])["parc"].undefined
    line = FeatureSet(f.features * np.arange(1, 5), f.labels)
    assert "single direction" in score(line, ["parc"])["parc"].undefined
