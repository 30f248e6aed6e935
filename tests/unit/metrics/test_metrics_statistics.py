"""Statistics gathered in batches give what the features give, however they are cut."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_metrics import draw

from worker.metrics import FeatureSet, InvalidFeatureSet, score
from worker.metrics.registry import METRICS
from worker.metrics.statistics import Statistics, accumulate, score_statistics

FROM_STATISTICS = [m.name for m in METRICS.values() if m.statistics and m.rows == "objects"]
OTHERS = [
    m.name for m in METRICS.values() if not m.statistics and not m.pool_relative and "features" in m.needs
]


def cut(f, edges):
    return [f.rows(np.arange(a, b)) for a, b in zip([0, *edges], [*edges, len(f.labels)], strict=True)]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(25, 40, 3), (30, 30, 4), (60, 12, 5), (140, 6, 3)]),
    st.integers(0, 10_000),
    st.floats(-100, 100),
    st.lists(st.integers(0, 25), max_size=4).map(sorted),
)
def test_batches_equal_the_whole(shape, seed, offset, edges):
    f = draw(*shape, seed=seed, offset=offset)
    whole = score(f, FROM_STATISTICS)
    for name, s in score_statistics(accumulate(cut(f, edges)), FROM_STATISTICS).items():
        assert s.undefined == whole[name].undefined, name
        if s.value is not None:
            assert s.value == pytest.approx(whole[name].value, rel=1e-6, abs=1e-7), name


def test_merging_is_exact_to_rounding_and_has_no_order():
    f = draw(200, 15, 6, offset=1000.0)
    a, b, c = (Statistics.of(part) for part in cut(f, [50, 120]))
    direct = Statistics.of(f)
    for merged in ((a + b) + c, a + (b + c), (c + a) + b):
        np.testing.assert_allclose(merged.mean, direct.mean, rtol=1e-14)
        np.testing.assert_allclose(
            np.tril(merged.moments.scatter), np.tril(direct.moments.scatter), rtol=1e-11, atol=1e-11
        )
        np.testing.assert_allclose(merged.moments.cubic, direct.moments.cubic, rtol=1e-9, atol=1e-9)
        assert merged.moments.quartic == pytest.approx(direct.moments.quartic, rel=1e-12)
        np.testing.assert_allclose(merged.class_means, direct.class_means, rtol=1e-14)
        np.testing.assert_allclose(merged.boxes.cross, direct.boxes.cross, rtol=1e-9, atol=1e-11)


def test_classes_that_only_some_batches_hold():
    f = draw(90, 8, 3)
    order = np.argsort(f.labels, kind="stable")
    sorted_by_class = f.rows(order)
    merged = accumulate(cut(sorted_by_class, [20, 60]))
    for name, s in score_statistics(merged, FROM_STATISTICS).items():
        assert s.value == pytest.approx(score(f, [name])[name].value, rel=1e-9), name


def test_metrics_that_need_features_say_so():
    for name, s in score_statistics(Statistics.of(draw(90, 8, 3)), [*OTHERS, "leep", "nce"]).items():
        assert "only their statistics were kept" in s.undefined, name


def test_faults_are_remembered():
    f = draw(90, 8, 3)
    x = f.features.copy()
    x[4] = np.nan
    broken = accumulate(cut(FeatureSet(x, f.labels, f.boxes), [40]))
    assert "1 of 90 objects hold NaN" in score_statistics(broken, ["logme"])["logme"].undefined
    boxes = f.boxes.copy()
    boxes[80] = np.inf
    broken = accumulate(cut(FeatureSet(f.features, f.labels, boxes), [40]))
    results = score_statistics(broken, ["logme", "logme_boxes"])
    assert results["logme"].value is not None
    assert "1 boxes hold NaN" in results["logme_boxes"].undefined


def test_what_cannot_be_added():
    f = draw(30, 5, 2)
    with pytest.raises(InvalidFeatureSet, match="5 and 4 feature dimensions"):
        Statistics.of(f) + Statistics.of(FeatureSet(f.features[:, :4], f.labels, f.boxes))
    with pytest.raises(InvalidFeatureSet, match="with boxes"):
        Statistics.of(f) + Statistics.of(FeatureSet(f.features, f.labels))


def test_no_batches():
    with pytest.raises(InvalidFeatureSet, match="no batches"):
        accumulate([])


def test_memory_does_not_grow_with_the_number_of_objects():
    rng = np.random.default_rng(0)

    def batches(count):
        for _ in range(count):
            x = rng.standard_normal((500, 64), dtype=np.float32)
            yield FeatureSet(x, rng.integers(0, 5, 500), rng.random((500, 4)))

    def peak(count):
        tracemalloc.start()
        score_statistics(accumulate(batches(count)), FROM_STATISTICS)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(1)
    assert peak(40) < 1.1 * peak(4)
