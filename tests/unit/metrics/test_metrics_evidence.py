"""LogME stands at the maximum of its evidence: whatever the scale of the features, and against the published code."""

import json
from pathlib import Path

import numpy as np
import plain_metrics as plain
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_metrics import draw, draw_regions

from worker.metrics import FeatureSet, RegionSet, accumulate, score, score_statistics
from worker.metrics.evidence import EvidenceSearch
from worker.metrics.gathering import Design, Gathering, score_gathered
from worker.metrics.iou_logme import predicted_boxes
from worker.metrics.on_device import score_on_device
from worker.metrics.options import DEFAULTS
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets

DATA = Path(__file__).parents[2] / "data"
GOLDEN = json.loads((DATA / "metrics_expected.json").read_text())
OF_OBJECTS = ["logme", "logme_boxes", "tlogme", "u_logme", "iou_logme"]
OF_REGIONS = [
    "logme_regions",
    "logme_regions_single",
    "logme_deltas",
    "logme_iou",
    "detection_evidence",
    "detection_evidence_single",
    "joint_evidence",
]
# N < D, N = D, N = D + 1, N > D, N >> D, D = 1, many classes
SHAPES = [(25, 40, 3), (30, 30, 4), (31, 30, 3), (60, 12, 5), (400, 6, 3), (50, 1, 2), (90, 20, 15)]


def kinds_of_features(f, kind, rng):
    """The features, or features that are noise, of low rank, with a huge offset, or that hold a class exactly."""
    x = f.features
    if kind == "noise":
        return rng.standard_normal(x.shape)
    if kind == "low rank":
        return x[:, :2] @ rng.standard_normal((min(2, x.shape[1]), x.shape[1]))
    if kind == "steep spectrum":
        return x * 10.0 ** -np.linspace(0, 5, x.shape[1])
    if kind == "offset":
        return x + 1e4
    if kind == "exact":
        return np.hstack([x, (f.labels == 0)[:, None]])
    return x


KINDS = ["plain", "noise", "low rank", "steep spectrum", "offset", "exact"]


def found_and_columns(f, x, kind):
    prepared, targets = Prepared(x, DEFAULTS), Targets.of(f)
    columns = prepared.project(targets, kind)
    search = EvidenceSearch([prepared.spectrum])
    return search.maximised(columns.raw.T, columns.squares), targets.columns(kind).dense().T


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(SHAPES), st.sampled_from(KINDS), st.integers(0, 10_000), st.floats(-8, 8))
def test_no_ratio_has_more_evidence(shape, kind, seed, power):
    """Neither a neighbour of the ratio found nor any other, over all that double precision tells apart."""
    f = draw(*shape, seed=seed)
    x = kinds_of_features(f, kind, np.random.default_rng(seed))
    found, columns = found_and_columns(f, x * 10.0**power, "classes")
    known = plain.eigen(x)
    s, _ = known
    everywhere = np.exp(np.linspace(np.log(s.max() * 1e-12), np.log(s.max() * 1e9), 80))
    for e, y in zip(found, columns, strict=True):
        assert np.isfinite(e.value)
        if e.capped:
            assert kind in ("exact", "low rank") or shape[0] <= shape[1]
            continue
        ratio = e.ratio / 10.0 ** (2 * power)
        near = ratio * np.array([0.5, 0.9, 0.999, 1.001, 1.1, 2.0]) if np.isfinite(ratio) else []
        ratios = np.concatenate([near, everywhere])
        ratios = ratios[ratios > s.max() * 1e-12]
        # an offset of 1e4 costs the plain way eight digits; for N <= D the evidence may be flat towards no ratio at all
        tolerance = 1e-7 if kind == "offset" or shape[0] <= shape[1] else 1e-9
        assert plain.evidence_at(x, y, ratios, known).max() <= e.value + tolerance
        if np.isfinite(ratio) and ratio > s.max() * 1e-12:
            assert plain.evidence_at(x, y, [ratio], known)[0] == pytest.approx(e.value, abs=tolerance)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 10_000), st.floats(-8, 8))
def test_scale_of_features_of_objects(shape, seed, power):
    f = draw(*shape, seed=seed)
    scaled = FeatureSet(f.features * 10.0**power, f.labels, f.boxes)
    a, b = score(f, OF_OBJECTS), score(scaled, OF_OBJECTS)
    for name in OF_OBJECTS:
        assert b[name].value == pytest.approx(a[name].value, abs=1e-9), name
    units = score(FeatureSet(f.features, f.labels, f.boxes / 7.0), ["logme_boxes"])["logme_boxes"]
    assert units.value == pytest.approx(a["logme_boxes"].value + np.log(7.0), abs=1e-9)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([(160, 8, 3), (120, 90, 2)]), st.integers(0, 10_000), st.floats(-8, 8))
def test_scale_of_features_of_regions(shape, seed, power):
    f = draw_regions(*shape, seed=seed)
    r = f.regions
    scaled = RegionSet(r.features * 10.0**power, r.labels, r.deltas, r.ious, r.image_ids, r.objects)
    a = score(f, OF_REGIONS)
    b = score(FeatureSet(f.features, f.labels, f.boxes, None, f.image_ids, scaled), OF_REGIONS)
    for name in OF_REGIONS:
        assert b[name].value == pytest.approx(a[name].value, abs=1e-9), name


@pytest.mark.parametrize("power", [-8, -4, 0, 4, 8])
def test_null_interval_statistics_and_device_at_every_scale(power):
    """Whatever way the evidence is reached, its scale and its path change nothing."""
    f = draw(150, 12, 4)
    names = ["logme", "logme_boxes", "tlogme", "u_logme"]
    same = {"permutations": 4, "groups": 6, "seed": 1}
    expected = score(f, names, **same)
    scaled = FeatureSet(f.features * 10.0**power, f.labels, f.boxes, None, f.image_ids)
    design = Design.of(f.labels, f.boxes, f.image_ids, names, **same)
    gathering = Gathering(design)
    gathering.add(np.arange(150), scaled.features)
    ways = {
        "score": score(scaled, names, **same),
        "device": score_on_device(scaled, names, device="cpu", **same),
        "gathered": score_gathered(gathering.result(), design, names),
    }
    for way, found in ways.items():
        for name in names:
            a, b = expected[name], found[name]
            assert b.value == pytest.approx(a.value, abs=1e-9), (way, name)
            assert b.null.mean == pytest.approx(a.null.mean, abs=1e-9), (way, name)
            np.testing.assert_allclose(b.interval.replicates, a.interval.replicates, atol=1e-9)
    halves = accumulate([scaled.rows(np.arange(70)), scaled.rows(np.arange(70, 150))])
    for name, s in score_statistics(halves, names).items():
        assert s.value == pytest.approx(expected[name].value, abs=1e-9), name


def golden(case):
    with np.load(DATA / f"metrics_{case}.npz") as arrays:
        return FeatureSet(**arrays)


# how far the published code stops below the maximum; it stops at 1 % or 11 steps
STOPS_BELOW = {
    ("tall", "logme"): 1e-8,
    ("tall", "logme_boxes"): 1e-7,
    ("many", "logme"): 2e-6,
    ("many", "logme_boxes"): 2e-7,
    ("wide", "logme"): 4e-4,
    ("wide", "logme_boxes"): 1e-3,
}


@pytest.mark.parametrize(("case", "name"), STOPS_BELOW)
def test_published_fixed_point(case, name):
    """Ours is never below the published value; let run on, the published fixed point arrives at ours."""
    f = golden(case)
    columns = plain.one_hot(f.labels) if name == "logme" else f.boxes
    published = plain.published_logme(f.features, columns)
    assert published == pytest.approx(GOLDEN[case][name], abs=1e-9)
    value = score(f, [name])[name].value
    assert -1e-12 <= value - published <= STOPS_BELOW[case, name]
    arrived = plain.published_logme(f.features, columns, steps=100_000, tolerance=1e-10)
    assert value == pytest.approx(arrived, abs=1e-6)


def test_published_start_fails_where_the_maximum_does_not():
    """Tiny features, as of an untrained body: the published start lies on the side where weights are zero."""
    f = draw(300, 20, 5)
    at_home = score(f, ["logme"])["logme"].value
    assert score(FeatureSet(f.features * 1e-8, f.labels), ["logme"])["logme"].value == pytest.approx(
        at_home, abs=1e-10
    )
    assert plain.published_logme(f.features * 1e-8, plain.one_hot(f.labels)) < at_home - 0.05


def test_features_that_know_nothing_have_the_evidence_of_no_weights():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = rng.standard_normal((200, 10))
    x -= np.stack([x[y == c].mean(axis=0) for c in (0, 1)])[y]  # orthogonal to both columns
    f = FeatureSet(x, y, np.tile([0.1, 0.1, 0.4, 0.5], (200, 1)))
    found = score(f, ["logme", "iou_logme"])
    assert found["logme"].value == pytest.approx(0.5 * (np.log(2) - 1 - np.log(2 * np.pi)), abs=1e-9)
    assert found["iou_logme"].value == 0.0
    boxes = predicted_boxes(Prepared(x, DEFAULTS), Targets.of(f))
    np.testing.assert_allclose(boxes, 0.0, atol=1e-9)


@pytest.mark.parametrize("shape", [(80, 10, 3), (20, 40, 3)], ids=str)
def test_zero_and_repeated_columns(shape):
    f = draw(*shape)
    wide = np.hstack([f.features, f.features, np.zeros((shape[0], 5))])
    for name, s in score(FeatureSet(wide, f.labels, f.boxes), OF_OBJECTS).items():
        assert s.value == pytest.approx(score(f, [name])[name].value, abs=1e-9), name


def test_float32_features_on_a_device_at_small_scale():
    f = draw(200, 16, 3)
    x = (f.features * 1e-6).astype(np.float32)
    stored = FeatureSet(x, f.labels, f.boxes)
    a = score(stored, ["logme"])["logme"].value
    assert score_on_device(stored, ["logme"], device="cpu")["logme"].value == pytest.approx(a, abs=1e-10)
    assert a == pytest.approx(score(f, ["logme"])["logme"].value, abs=1e-6)
    assert torch.get_default_dtype() == torch.float32
