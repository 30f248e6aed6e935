"""Nulls and intervals of metrics over regions and of their sums; the same numbers from gathered statistics and on a device."""

import dataclasses

import numpy as np
import pytest
import torch
from plain_metrics import draw_regions

from worker.metrics import METRICS, FeatureSet, InvalidFeatureSet, RegionSet, score
from worker.metrics import gathering as module
from worker.metrics.gathering import NO_NULL, Design, Gathering, score_gathered
from worker.metrics.jackknife import image_groups
from worker.metrics.null import generator
from worker.metrics.on_device import Tensors, score_on_device
from worker.metrics.regions import index_of
from worker.metrics.statistics import OF_OBJECTS, accumulate, score_statistics

NAMES = [m.name for m in METRICS.values() if m.rows != "objects"]
SUMS = [m.name for m in METRICS.values() if m.sum_of]
BOTH = ["logme", "h_score_regularized", *NAMES]
CALIBRATION = {"permutations": 4, "groups": 6, "seed": 3}
# N > D; N < D; regions N > D but jittered N < D; one class
SETS = [(400, 12, 4), (80, 120, 3), (160, 100, 3), (96, 20, 1)]


def of(regions: RegionSet) -> FeatureSet:
    d = regions.features.shape[1]
    return FeatureSet(np.empty((0, d)), np.empty(0, dtype=np.int64), regions=regions)


def same(found, expected, rel=1e-9, least=1e-9):
    for name, s in expected.items():
        other = found[name]
        assert (other.undefined, other.notes) == (s.undefined, s.notes), name
        if s.value is None:
            continue
        assert other.value == pytest.approx(s.value, rel=rel, abs=least), name
        assert (other.null is None, other.interval is None) == (s.null is None, s.interval is None), name
        if s.null:
            assert other.null.mean == pytest.approx(s.null.mean, rel=rel, abs=least), name
            assert other.null.std == pytest.approx(s.null.std, rel=1e-6, abs=least), name
            assert (other.null.permutations, other.null.seed) == (s.null.permutations, s.null.seed)
        if s.interval:
            assert other.interval.replicates == pytest.approx(s.interval.replicates, rel=rel, abs=least), name


@pytest.mark.parametrize("shape", SETS, ids=str)
def test_null_equals_scores_of_permuted_targets(shape):
    f = draw_regions(*shape)
    r, shared = f.regions, score(f, NAMES, permutations=5, seed=3)
    own = np.flatnonzero(~np.isnan(r.deltas[:, 0]))
    drawn = {name: [] for name in NAMES}
    of_all, of_own = generator(3, "regions"), generator(3, "jittered")
    for _ in range(5):
        order, moved = of_all.permutation(len(r.labels)), np.arange(len(r.labels))
        moved[own] = own[of_own.permutation(len(own))]
        for rows, handed in (("regions", order), ("jittered", moved)):
            slow = RegionSet(r.features, r.labels[handed], r.deltas[handed], r.ious[handed])
            names = [name for name in NAMES if METRICS[name].rows == rows and name not in SUMS]
            for name, s in score(of(slow), names).items():
                drawn[name].append(s.value)
    single, of_single = r.rows(index_of(r, "single")), generator(3, "single")
    for _ in range(5):
        handed = of_single.permutation(len(single.labels))
        slow = RegionSet(single.features, single.labels[handed], single.deltas[handed], single.ious[handed])
        for name, s in score(of(slow), ["logme_regions", "h_score_regions"]).items():
            drawn[f"{name}_single"].append(s.value)
    for name in set(NAMES) - set(SUMS):
        null = shared[name].null
        assert null.mean == pytest.approx(np.mean(drawn[name]), rel=1e-9, abs=1e-9), name
        assert null.std == pytest.approx(np.std(drawn[name], ddof=1), rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("shape", SETS, ids=str)
def test_replicates_equal_scores_without_the_images(shape):
    f = draw_regions(*shape)
    shared = score(f, NAMES, groups=6, seed=1)
    group = image_groups(f.regions.image_ids, 6, 1)
    slow = [score(of(f.regions.rows(group != g)), NAMES) for g in range(group.max() + 1)]
    for name, s in shared.items():
        # its share of jittered regions is that of all images in every replicate
        rel = 1e-8 if name != "joint_evidence" else 0.02
        assert s.interval.replicates == pytest.approx([r[name].value for r in slow], rel=rel, abs=1e-9), name
        assert s.interval.low < s.value < s.interval.high


def test_nulls_and_intervals_of_sums_come_from_those_of_the_terms():
    f = draw_regions(320, 10, 3)
    found = score(f, NAMES, **CALIBRATION)
    for name, terms, weights in (
        ("detection_evidence", ("logme_regions", "logme_deltas"), (1, 1)),
        ("detection_evidence_single", ("logme_regions_single", "logme_deltas"), (1, 1)),
        ("detection_h_score_single", ("h_score_regions_single", "h_score_deltas"), (1 / 3, 1 / 4)),
        ("detection_h_score", ("h_score_regions", "h_score_deltas"), (1 / 3, 1 / 4)),
    ):
        a, b = (found[term] for term in terms)
        v, w = weights
        s = found[name]
        assert s.value == pytest.approx(v * a.value + w * b.value, rel=1e-12)
        assert s.null.mean == pytest.approx(v * a.null.mean + w * b.null.mean, rel=1e-12)
        assert s.null.std**2 == pytest.approx(v**2 * a.null.std**2 + w**2 * b.null.std**2, rel=1e-9)
        assert s.z == pytest.approx((s.value - s.null.mean) / s.null.std)
        replicates = v * np.array(a.interval.replicates) + w * np.array(b.interval.replicates)
        assert s.interval.replicates == pytest.approx(replicates, rel=1e-12)
        spread = np.sqrt(5 / 6 * np.square(replicates - replicates.mean()).sum())
        assert s.interval.std == pytest.approx(spread, rel=1e-9)
    assert all(found[name].null and found[name].interval for name in NAMES)
    assert score(f, NAMES, **CALIBRATION)["joint_evidence"].null == found["joint_evidence"].null


def test_permutations_of_different_rows_are_independent():
    a, b = generator(3, "regions").permutation(50), generator(3, "jittered").permutation(50)
    assert (a != b).any()
    np.testing.assert_array_equal(
        generator(3, "objects").permutation(50), np.random.default_rng(3).permutation(50)
    )


def background_only(f: FeatureSet) -> FeatureSet:
    """Images 0 and 1 lose their jittered regions, so that a group may be left without any."""
    r = f.regions
    return dataclasses.replace(f, regions=r.rows((r.image_ids > 1) | np.isnan(r.deltas[:, 0])))


def test_images_without_jittered_regions_leave_the_deltas_as_they_are():
    f = background_only(draw_regions(160, 6, 2))
    images = len(np.unique(f.regions.image_ids))
    found = score(f, NAMES, groups=images, seed=0)
    group = image_groups(f.regions.image_ids, images, 0)
    empty = int(group[f.regions.image_ids == 0][0])
    deltas = found["logme_deltas"]
    assert deltas.interval.replicates[empty] == deltas.value
    whole = found["detection_evidence"].interval.replicates[empty]
    assert whole == pytest.approx(found["logme_regions"].interval.replicates[empty] + deltas.value, rel=1e-12)


def test_few_images_give_a_note_instead_of_an_interval():
    f = draw_regions(48, 6, 2)
    for s in score(f, NAMES, groups=20).values():
        assert s.interval is None
        assert any("no interval: 3 images" in note for note in s.notes)


def gathered_of(f: FeatureSet, design: Design, cuts: int = 7, objects=slice(None), regions=slice(None)):
    gathering = Gathering(design)
    rng = np.random.default_rng(0)
    rows, own = np.arange(len(f.labels))[objects], np.arange(len(f.regions.labels))[regions]
    for part in np.array_split(rng.permutation(rows), cuts):
        gathering.add(part, f.features[part])
    for part in np.array_split(rng.permutation(own), cuts):
        gathering.add_regions(part, f.regions.features[part])
    return gathering.result()


def design_of(f: FeatureSet, metrics=BOTH, **changes) -> Design:
    known = dataclasses.replace(f.regions, features=np.empty((len(f.regions.labels), 0)))
    calibration = CALIBRATION | changes
    return Design.of(f.labels, f.boxes, f.image_ids, metrics, regions=known, **calibration)


@pytest.mark.parametrize("shape", [*SETS, (1200, 8, 5)], ids=str)
def test_gathered_in_any_parts_as_from_the_features(shape, monkeypatch):
    monkeypatch.setattr(module, "HELD_ROWS", 50)
    f = draw_regions(*shape)
    design, expected = design_of(f), score(f, BOTH, **CALIBRATION)
    # the primal reduction of N < D keeps fewer digits than the features' own
    rel, least = (1e-8, 1e-9) if shape[0] // 2 > shape[1] else (2e-6, 5e-6)
    same(score_gathered(gathered_of(f, design), design, BOTH), expected, rel, least)
    n, r = len(f.labels), len(f.regions.labels)
    first = gathered_of(f, design, 3, slice(0, n // 3), slice(0, r // 3))
    second = gathered_of(f, design, 3, slice(n // 3, None), slice(r // 3, None))
    same(score_gathered(first + second, design, BOTH), expected, rel, least)
    assert all(expected[name].null for name in NAMES)


def test_gathered_where_deltas_do_not_vary():
    f = draw_regions(160, 6, 2)
    deltas = f.regions.deltas.copy()
    deltas[~np.isnan(deltas[:, 0]), 2:] = (0.0, 0.1)
    f = dataclasses.replace(f, regions=dataclasses.replace(f.regions, deltas=deltas))
    design, expected = design_of(f), score(f, BOTH, **CALIBRATION)
    assert "dw, dh are the same" in expected["h_score_deltas"].notes[0]
    assert expected["h_score_deltas"].interval
    same(score_gathered(gathered_of(f, design), design, BOTH), expected, 1e-8)


def test_gathered_with_images_that_have_no_jittered_regions():
    f = background_only(draw_regions(160, 6, 2))
    changes = {"groups": 10}
    design = design_of(f, **changes)
    same(score_gathered(gathered_of(f, design), design, BOTH), score(f, BOTH, **CALIBRATION | changes), 1e-8)


def test_a_shard_may_have_no_regions():
    f = draw_regions(160, 6, 2)
    design = design_of(f)
    n = len(f.labels)
    first = gathered_of(f, design, 1, slice(0, n // 2))
    second = gathered_of(f, design, 1, slice(n // 2, None), slice(0, 0))
    assert second.regions == {}
    for merged in (first + second, second + first):
        same(score_gathered(merged, design, BOTH), score(f, BOTH, **CALIBRATION), 1e-8)


def test_only_the_rows_that_the_metrics_need_are_gathered():
    f = draw_regions(160, 6, 2)
    assert set(design_of(f, ["logme"]).regions) == set()
    assert set(design_of(f, ["logme", "logme_deltas"]).regions) == {"jittered"}
    assert set(design_of(f, ["detection_evidence"]).regions) == {"regions", "jittered"}
    assert set(design_of(f, ["logme_regions_single"]).regions) == {"single"}
    unknown = dataclasses.replace(f, regions=dataclasses.replace(f.regions, objects=None))
    assert set(design_of(unknown, ["detection_evidence"]).regions) == {"regions", "jittered"}
    with pytest.raises(InvalidFeatureSet, match="pass `objects`"):
        design_of(unknown, ["logme_regions_single"])
    plain = Design.of(f.labels, f.boxes, f.image_ids, BOTH)
    gathering = Gathering(plain)
    gathering.add(np.arange(len(f.labels)), f.features)
    found = score_gathered(gathering.result(), plain, ["logme_deltas", "detection_h_score"])
    assert all(s.undefined.startswith("regions were not sampled: ") for s in found.values())


def test_gathered_without_background_or_with_broken_features():
    f = draw_regions(160, 6, 2)
    own = ~np.isnan(f.regions.deltas[:, 0])
    without = dataclasses.replace(f, regions=f.regions.rows(own))
    design = design_of(without)
    found = score_gathered(gathered_of(without, design), design, NAMES)
    assert "no background" in found["logme_regions"].undefined
    assert found["logme_deltas"].value is not None
    x = f.regions.features.copy()
    x[:8, 2] = np.inf
    broken = dataclasses.replace(f, regions=dataclasses.replace(f.regions, features=x))
    design = design_of(broken)
    found = score_gathered(gathered_of(broken, design), design, BOTH)
    assert "8 of 160 regions hold NaN" in found["logme_regions"].undefined
    assert "4 of 80 jittered regions hold NaN" in found["logme_deltas"].undefined
    assert found["logme"].value is not None


def test_nulls_that_would_be_too_large_are_left_out_with_a_note(monkeypatch):
    monkeypatch.setattr(module, "NULL_BYTES", 100)
    f = draw_regions(160, 6, 2)
    design = design_of(f)
    found = score_gathered(gathered_of(f, design), design, ["detection_evidence"])["detection_evidence"]
    assert (found.null, found.z, found.notes) == (None, None, (NO_NULL,))
    assert found.interval


def test_statistics_of_objects_say_that_regions_are_gathered_apart():
    f = draw_regions(160, 6, 2)
    bare = FeatureSet(f.features, f.labels, f.boxes)
    for s in score_statistics(accumulate([bare]), NAMES).values():
        assert s.undefined == OF_OBJECTS


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("shape", SETS, ids=str)
def test_same_numbers_on_a_device(device, shape):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    f = draw_regions(*shape)
    expected = score(f, BOTH, **CALIBRATION)
    same(score_on_device(f, BOTH, device=device, **CALIBRATION), expected)
    x, regions = (torch.as_tensor(a, device=device) for a in (f.features, f.regions.features))
    same(score_on_device(f, BOTH, device=device, tensors=Tensors(x, regions), **CALIBRATION), expected)
