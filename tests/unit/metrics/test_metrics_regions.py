"""Metrics over regions: the values of the plain formulas, what they know and do not know, and when they say nothing."""

import dataclasses

import numpy as np
import plain_metrics as plain
import pytest
from plain_metrics import draw_regions

from worker.metrics import METRICS, FeatureSet, InvalidFeatureSet, RegionSet, score
from worker.metrics.options import DEFAULTS
from worker.metrics.prepared import Prepared
from worker.metrics.region_h_score import continuous_h_score
from worker.metrics.regions import NO_OBJECTS, index_of
from worker.metrics.targets import Targets

NAMES = [m.name for m in METRICS.values() if m.rows != "objects"]
# N > D; regions N > D but jittered N < D; N < D; one class
SETS = [(400, 12, 4), (160, 100, 3), (80, 120, 3), (96, 20, 1)]


def of(regions: RegionSet) -> FeatureSet:
    """No object at all: the metrics of regions do not look at objects."""
    d = regions.features.shape[1]
    return FeatureSet(np.empty((0, d)), np.empty(0, dtype=np.int64), regions=regions)


def values(regions: RegionSet, names=NAMES, **options):
    found = score(of(regions), names, **options)
    assert [s.undefined for s in found.values() if s.value is None] == []
    return {name: s.value for name, s in found.items()}


def changed(regions: RegionSet, **changes) -> RegionSet:
    return dataclasses.replace(regions, **changes)


def undefined(regions: RegionSet):
    return {name: s.undefined for name, s in score(of(regions), NAMES).items()}


def single_by_hand(r: RegionSet) -> list[int]:
    """The first jittered region of each object and, of each image, as much background, evenly spaced."""
    chosen = []
    for image in np.unique(r.image_ids):
        of_image = np.flatnonzero(r.image_ids == image)
        background = [i for i in of_image if np.isnan(r.deltas[i, 0])]
        first = {}
        for i in of_image:
            if not np.isnan(r.deltas[i, 0]):
                first.setdefault(r.objects[i], i)
        wanted = min(len(first), len(background))
        chosen += [*first.values(), *(background[k * len(background) // wanted] for k in range(wanted))]
    return sorted(chosen)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", SETS, ids=str)
def test_values_of_the_plain_formulas(shape, dtype):
    r = draw_regions(*shape).regions
    r = changed(r, features=r.features.astype(dtype))
    own = ~np.isnan(r.deltas[:, 0])
    x, xj, deltas, classes = r.features, r.features[own], r.deltas[own], shape[2]
    hot, iou = plain.one_hot(r.labels), r.ious[:, None]
    expected = {
        "logme_regions": plain.logme(x, hot),
        "logme_deltas": plain.logme(xj, deltas),
        "logme_iou": plain.logme(x, iou),
        "h_score_regions": plain.h_score_regularized(x, r.labels),
        "h_score_deltas": plain.h_score_continuous(xj, deltas),
        "h_score_iou": plain.h_score_continuous(x, iou),
    }
    one = single_by_hand(r)
    expected["logme_regions_single"] = plain.logme(x[one], hot[one])
    expected["h_score_regions_single"] = plain.h_score_regularized(x[one], r.labels[one])
    expected["detection_evidence_single"] = expected["logme_regions_single"] + expected["logme_deltas"]
    of_single = expected["h_score_regions_single"] / classes
    expected["detection_h_score_single"] = of_single + expected["h_score_deltas"] / 4
    expected["detection_evidence"] = expected["logme_regions"] + expected["logme_deltas"]
    expected["detection_h_score"] = expected["h_score_regions"] / classes + expected["h_score_deltas"] / 4
    of_classes = sum(plain.logme(x, hot[:, [c]]) for c in range(classes))
    expected["joint_evidence"] = of_classes + own.mean() * 4 * expected["logme_deltas"]
    found = values(r)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert list(found) == NAMES


@pytest.mark.parametrize("shape", SETS, ids=str)
def test_on_one_hot_targets_the_continuous_h_score_is_the_published_one(shape):
    f = draw_regions(*shape)
    x, labels = f.regions.features, f.regions.labels
    classes, counts = np.unique(labels, return_counts=True)
    hot = plain.one_hot(labels)
    targets = Targets(labels, classes, counts, hot, None)
    found = continuous_h_score(Prepared(x, DEFAULTS, targets), targets, "regions").value
    assert found == pytest.approx(plain.h_score_regularized(x, labels), rel=1e-9)
    targets = Targets(labels, classes, counts, hot[:, 1:], None)
    assert continuous_h_score(Prepared(x, DEFAULTS, targets), targets, "regions").value == pytest.approx(
        found, rel=1e-9
    )


def test_all_kinds_of_rows_in_one_call_are_the_kinds_by_themselves():
    f = draw_regions(240, 10, 3)
    asked = ["logme", "detection_evidence", "h_score_iou", "logme_boxes", "logme_deltas"]
    together = score(f, asked)
    assert list(together) == asked
    for name in asked:
        assert together[name].value == pytest.approx(score(f, [name])[name].value, rel=1e-12)
    bare = FeatureSet(f.features, f.labels, f.boxes)
    assert together["logme"].value == score(bare, ["logme"])["logme"].value


@pytest.mark.parametrize("shape", SETS, ids=str)
def test_order_of_regions(shape):
    r = draw_regions(*shape).regions
    order = np.random.default_rng(1).permutation(len(r.labels))
    # which of an object's regions is the first is a matter of their order
    names = [name for name in NAMES if "single" not in name]
    assert values(r.rows(order), names) == pytest.approx(values(r, names), rel=1e-8, abs=1e-9)


def test_single_regions_are_one_of_each_object_and_as_much_background_of_each_image():
    r = draw_regions(160, 6, 3).regions
    # image 1 has little background, image 2 none, the background of image 3 stands before its objects
    drop = ((r.image_ids == 1) | (r.image_ids == 2)) & np.isnan(r.deltas[:, 0])
    drop[np.flatnonzero((r.image_ids == 1) & drop)[0]] = False
    order = np.argsort(np.where(r.image_ids == 3, ~np.isnan(r.deltas[:, 0]), False), kind="stable")
    r = r.rows(order[~drop[order]])
    index = index_of(r, "single")
    assert index.tolist() == single_by_hand(r)
    own = ~np.isnan(r.deltas[index, 0])
    assert sorted(r.objects[index[own]]) == list(range(20))
    background = np.bincount(r.image_ids[index[~own]], minlength=10)
    assert background.tolist() == [2, 1, 0, *[2] * 7]
    assert index_of(changed(r, image_ids=None), "single").tolist() != index.tolist()


def test_single_regions_need_to_know_the_objects():
    r = changed(draw_regions(160, 6, 3).regions, objects=None)
    reasons = undefined(r)
    for name in NAMES:
        assert (reasons[name] == NO_OBJECTS) == ("single" in name), name


def test_scale_of_features_and_units_of_deltas():
    r = draw_regions(400, 8, 3, signal=2.0).regions
    before = values(r)
    scaled = values(changed(r, features=r.features * 37.0))
    assert scaled == pytest.approx(before, rel=1e-6, abs=1e-6)
    other = values(changed(r, deltas=r.deltas * 10.0))
    assert other["logme_deltas"] == pytest.approx(before["logme_deltas"] - np.log(10.0), rel=1e-6)
    turn = np.random.default_rng(0).standard_normal((4, 4))
    mixed = values(changed(r, deltas=r.deltas @ turn + 3.0), ["h_score_deltas"])
    assert mixed["h_score_deltas"] == pytest.approx(before["h_score_deltas"], rel=1e-8)
    moved = values(
        changed(r, features=r.features + 5.0), ["h_score_regions", "h_score_deltas", "h_score_iou"]
    )
    assert moved == pytest.approx({name: before[name] for name in moved}, rel=1e-7)


def test_features_that_hold_the_deltas_and_noise():
    rng = np.random.default_rng(0)
    r = draw_regions(800, 16, 2).regions
    noise = rng.standard_normal(r.features.shape) / np.sqrt(1 + np.arange(16))
    telling = noise.copy()
    telling[:, :4] = 20 * np.nan_to_num(r.deltas) + 0.01 * telling[:, :4]
    names = ["logme_deltas", "h_score_deltas"]
    good, bad = (score(of(changed(r, features=x)), names, permutations=20) for x in (telling, noise))
    assert good["h_score_deltas"].value > 3.5
    assert good["logme_deltas"].value > good["logme_deltas"].null.mean + 1
    for name in names:
        assert abs(bad[name].z) < 4 < 100 < good[name].z
        assert bad[name].value == pytest.approx(bad[name].null.mean, abs=0.03)


def test_features_that_hold_the_iou():
    rng = np.random.default_rng(0)
    r = draw_regions(800, 16, 2).regions
    x = rng.standard_normal(r.features.shape)
    noise = values(changed(r, features=x))
    x[:, 3] += 20 * r.ious
    telling = values(changed(r, features=x))
    assert telling["h_score_iou"] > 0.9 > 0.1 > noise["h_score_iou"]
    assert telling["logme_iou"] > noise["logme_iou"] + 1


@pytest.mark.parametrize(("classes", "level"), [(1, -0.726), (10, 0.03)])
def test_features_that_do_not_tell_background_stay_at_the_null(classes, level):
    """The level is the documented one; knowing background lifts it."""
    rng = np.random.default_rng(3)
    r = draw_regions(4000, 12, classes, per_object=1).regions
    x = rng.standard_normal(r.features.shape) / np.sqrt(1 + np.arange(12)) + 3.0
    found = score(of(changed(r, features=x)), ["logme_regions", "h_score_regions"], permutations=20)
    assert found["logme_regions"].value == pytest.approx(level, abs=0.02)
    assert all(abs(s.z) < 4 for s in found.values())
    if classes == 1:
        x[:, 1] += np.where(r.labels == 1, 3.0, -3.0)
        assert values(changed(r, features=x))["logme_regions"] > level + 0.5


def test_smooth_features_seem_to_know_the_class_unless_each_object_counts_once():
    """What docs/metrics.md warns of: regions of one object count as independent."""
    found = {}
    for per_object in (4, 1):
        rng = np.random.default_rng(0)
        r = draw_regions(120 * per_object, 128, 3, per_object=per_object).regions
        owner = np.arange(len(r.labels)) // (2 * per_object)
        own = ~np.isnan(r.deltas[:, :1])
        common = rng.standard_normal((owner.max() + 1, 128))[owner]
        rest = rng.standard_normal(r.features.shape)
        x = np.where(own, np.sqrt(0.9) * common + np.sqrt(0.1) * rest, rest)
        names = ["logme_regions", "logme_regions_single"]
        found[per_object] = score(of(changed(r, features=x)), names, permutations=10)
    assert found[4]["logme_regions"].value > found[4]["logme_regions"].null.mean + 0.1
    for s in (found[1]["logme_regions"], found[4]["logme_regions_single"]):
        assert s.value == pytest.approx(s.null.mean, abs=0.03)
    assert found[1]["logme_regions"].value == found[1]["logme_regions_single"].value


def test_without_regions_every_metric_says_how_to_get_them():
    f = draw_regions(80, 6, 2)
    for name, s in score(FeatureSet(f.features, f.labels, f.boxes), NAMES, permutations=2, groups=5).items():
        assert s.value is None, name
        assert s.undefined.startswith("regions were not sampled: "), name
    assert undefined(f.regions.rows(np.arange(0)))["logme_regions"] == "there are no regions"


def test_no_background_and_no_objects():
    r = draw_regions(80, 6, 2).regions
    own = ~np.isnan(r.deltas[:, 0])
    without = undefined(r.rows(own))
    assert "no background" in without["logme_regions"]
    assert "no background" in without["h_score_iou"]
    assert "term logme_regions is undefined" in without["detection_evidence"]
    assert (without["logme_deltas"], without["h_score_deltas"]) == (None, None)
    assert "no jittered region" in undefined(r.rows(~own))["logme_regions"]
    assert "0 jittered region(s)" in undefined(r.rows(~own))["logme_deltas"]


def test_few_jittered_regions():
    r = draw_regions(80, 6, 2).regions
    own, others = np.flatnonzero(~np.isnan(r.deltas[:, 0])), np.flatnonzero(np.isnan(r.deltas[:, 0]))
    one = undefined(r.rows(np.concatenate([own[:1], others])))
    assert "1 jittered region(s): at least 2" in one["logme_deltas"]
    assert "1 jittered region(s): at least 2" in one["h_score_deltas"]
    five = undefined(r.rows(np.concatenate([own[:5], others])))
    assert "5 jittered regions for 4 targets" in five["h_score_deltas"]
    assert "term detection_h_score of deltas is undefined: 5 jittered" in five["detection_h_score"]
    assert five["logme_deltas"] is None


def test_values_that_are_not_finite():
    r = draw_regions(80, 6, 2).regions
    x, deltas, ious = r.features.copy(), r.deltas.copy(), r.ious.copy()
    x[0, 2], deltas[0, 1], ious[5] = np.nan, np.inf, np.nan
    assert all(
        "hold NaN" in reason and "region" in reason for reason in undefined(changed(r, features=x)).values()
    )
    bad = undefined(changed(r, deltas=deltas))
    assert "1 of 40 deltas hold NaN or infinity: remove those regions" in bad["logme_deltas"]
    assert (bad["h_score_deltas"] is None, bad["logme_regions"]) == (False, None)
    bad = undefined(changed(r, ious=ious))
    assert "1 of 80 ious hold NaN" in bad["logme_iou"]
    assert (bad["h_score_iou"] is None, bad["h_score_regions"], bad["logme_deltas"]) == (False, None, None)


def test_targets_that_do_not_vary():
    r = draw_regions(160, 6, 2).regions
    assert "same IoU" in undefined(changed(r, ious=np.full(160, 0.3)))["logme_iou"]
    assert "same IoU" in undefined(changed(r, ious=np.full(160, 0.3)))["h_score_iou"]
    assert (
        "same deltas"
        in undefined(changed(r, deltas=np.where(np.isnan(r.deltas), np.nan, 0.1)))["logme_deltas"]
    )
    unscaled = r.deltas.copy()
    own = ~np.isnan(unscaled[:, 0])
    unscaled[own, 2:] = (0.0, 0.1)
    found = score(of(changed(r, deltas=unscaled)), ["logme_deltas", "h_score_deltas", "detection_h_score"])
    assert found["logme_deltas"].value == pytest.approx(
        plain.logme(r.features[own], unscaled[own, :2]), rel=1e-9
    )
    alone = plain.h_score_continuous(r.features[own], unscaled[own, :2])
    assert found["h_score_deltas"].value == pytest.approx(alone, rel=1e-9)
    of_classes = plain.h_score_regularized(r.features, r.labels) / 2
    assert found["detection_h_score"].value == pytest.approx(of_classes + alone / 2, rel=1e-9)
    for s in found.values():
        assert s.notes == ("dw, dh are the same for all jittered regions and were left out",)


def test_dependent_deltas_count_as_the_directions_they_span():
    r = draw_regions(160, 6, 2).regions
    deltas = r.deltas.copy()
    deltas[:, 3] = deltas[:, 0] - 2 * deltas[:, 1]
    own = ~np.isnan(deltas[:, 0])
    found = values(changed(r, deltas=deltas), ["h_score_deltas", "detection_h_score"])
    alone = plain.h_score_continuous(r.features[own], deltas[own, :3])
    assert found["h_score_deltas"] == pytest.approx(alone, rel=1e-8)
    of_classes = plain.h_score_regularized(r.features, r.labels) / 2
    assert found["detection_h_score"] == pytest.approx(of_classes + alone / 3, rel=1e-8)


def test_absent_classes_are_reported_by_their_ids():
    r = draw_regions(160, 6, 2).regions
    labels = np.array([1, 4, 6])[r.labels]
    found = score(of(changed(r, labels=labels)), ["logme_regions", "logme_deltas"])
    assert found["logme_regions"].notes == ("3 class ids without objects were ignored: 0, 2, 3",)
    assert found["logme_deltas"].notes == ()
    assert found["logme_regions"].value == pytest.approx(values(r)["logme_regions"], rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"deltas": np.zeros((24, 3))}, r"regions.deltas must have shape \(24, 4\)"),
        ({"ious": np.zeros((24, 1))}, r"regions.ious must be \(24,\)"),
        ({"ious": np.array(["a"] * 24)}, "real numbers"),
        ({"labels": np.zeros(23, int)}, r"regions.labels must have shape \(24,\)"),
        ({"labels": np.full(24, -1)}, "regions.labels must be class ids from 0"),
        ({"labels": np.full(24, 1.5)}, "regions.labels must be integer"),
        ({"labels": np.full(24, 2)}, "2 is background's"),
        ({"labels": np.arange(24)}, "number of categories wherever deltas are NaN"),
        ({"features": np.zeros((23, 5))}, r"regions.labels must have shape \(23,\)"),
        ({"image_ids": np.arange(3)}, r"regions.image_ids must have shape \(24,\)"),
        ({"objects": np.arange(3)}, r"regions.objects must have shape \(24,\)"),
    ],
)
def test_regions_that_cannot_be_meant(changes, words):
    regions = draw_regions(24, 5, 2).regions
    with pytest.raises(InvalidFeatureSet, match=words):
        dataclasses.replace(regions, **changes)


def test_regions_of_another_layer():
    f = draw_regions(24, 5, 2)
    with pytest.raises(InvalidFeatureSet, match="5 columns of features"):
        FeatureSet(f.features, f.labels, regions=draw_regions(24, 6, 2).regions)


def test_boxes_of_objects_still_have_four_columns():
    with pytest.raises(InvalidFeatureSet, match=r"boxes must have shape \(10, 4\)"):
        FeatureSet(np.zeros((10, 3)), np.zeros(10, int), np.zeros((10, 5)))


def test_the_caller_s_arrays_stay_as_they_were():
    f = draw_regions(96, 20, 2)
    arrays = ("features", "labels", "deltas", "ious", "image_ids", "objects")
    before = {name: getattr(f.regions, name).copy() for name in arrays}
    for array in arrays:
        getattr(f.regions, array).setflags(write=False)
    score(f, NAMES, permutations=2, groups=5)
    for name, array in before.items():
        np.testing.assert_array_equal(getattr(f.regions, name), array)
