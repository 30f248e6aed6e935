"""Gathered while features pass by: the scores, nulls and intervals of the features themselves, however the objects arrive."""

import tracemalloc

import numpy as np
import pytest
from plain_metrics import draw

from worker.metrics import FeatureSet, InvalidFeatureSet, score
from worker.metrics import gathering as module
from worker.metrics.gathering import NO_NULL, Design, Gathering, score_gathered
from worker.metrics.registry import METRICS
from worker.metrics.statistics import Statistics

FROM_STATISTICS = [m.name for m in METRICS.values() if m.statistics]
CALIBRATION = {"permutations": 5, "groups": 6, "seed": 3}


def design_of(f: FeatureSet, metrics=FROM_STATISTICS, **changes) -> Design:
    return Design.of(f.labels, f.boxes, f.image_ids, metrics, **(CALIBRATION | changes))


def gathered_of(f: FeatureSet, design: Design, order: np.ndarray, cuts: int = 7):
    gathering = Gathering(design)
    for rows in np.array_split(order, cuts):
        gathering.add(rows, f.features[rows])
    return gathering.result()


def same(found, expected, rel=1e-9):
    for name, s in expected.items():
        other = found[name]
        assert (other.undefined, other.notes) == (s.undefined, s.notes), name
        if s.value is None:
            continue
        assert other.value == pytest.approx(s.value, rel=rel), name
        assert (other.null is None) == (s.null is None), name
        assert (other.interval is None) == (s.interval is None), name
        if s.null:
            assert other.null.mean == pytest.approx(s.null.mean, rel=rel), name
            assert other.null.std == pytest.approx(s.null.std, rel=1e-6), name
            assert (other.null.permutations, other.null.seed) == (s.null.permutations, s.null.seed)
        if s.interval:
            assert other.interval.replicates == pytest.approx(s.interval.replicates, rel=rel), name


@pytest.mark.parametrize(("shape", "offset"), [((240, 12, 5), 0.5), ((400, 30, 3), 50.0), ((90, 20, 1), 0.0)])
def test_the_numbers_of_the_features_in_any_order_and_any_parts(shape, offset, monkeypatch):
    monkeypatch.setattr(module, "HELD_ROWS", 50)
    f = draw(*shape, offset=offset)
    design, rng = design_of(f), np.random.default_rng(0)
    expected = score(f, FROM_STATISTICS, **CALIBRATION)
    order = rng.permutation(len(f.labels))
    same(score_gathered(gathered_of(f, design, order), design, FROM_STATISTICS), expected)
    parts = [gathered_of(f, design, part) for part in np.array_split(order, 3)]
    for merged in (parts[0] + parts[1] + parts[2], parts[2] + (parts[0] + parts[1])):
        same(score_gathered(merged, design, FROM_STATISTICS), expected)
    assert any(s.null and s.interval for s in expected.values())


def test_fewer_objects_than_dimensions_are_scored_too():
    f = draw(60, 80, 3)
    design = design_of(f)
    same(
        score_gathered(gathered_of(f, design, np.arange(60)), design, FROM_STATISTICS),
        score(f, FROM_STATISTICS, **CALIBRATION),
        rel=1e-7,
    )


def test_a_class_that_lives_in_one_group_of_images():
    f = draw(200, 9, 3)
    labels = f.labels.copy()
    labels[f.image_ids == 7] = 3
    f = FeatureSet(f.features, labels, f.boxes, None, f.image_ids)
    design = design_of(f)
    expected = score(f, FROM_STATISTICS, **CALIBRATION)
    same(score_gathered(gathered_of(f, design, np.arange(200)), design, FROM_STATISTICS), expected)


def test_without_boxes_nulls_or_intervals():
    f = draw(120, 8, 3)
    f = FeatureSet(f.features, f.labels, None, None, f.image_ids)
    metrics = ["logme", "h_score", "logme_boxes"]
    design = design_of(f, metrics, permutations=0, groups=0)
    found = score_gathered(gathered_of(f, design, np.arange(120)), design, metrics)
    assert [(s.null, s.interval) for s in found.values()] == [(None, None)] * 3
    assert found["logme"].value == pytest.approx(score(f, ["logme"])["logme"].value, rel=1e-10)
    assert "no boxes" in found["logme_boxes"].undefined


def test_few_images_give_a_note_instead_of_an_interval():
    f = draw(9, 4, 2)
    design = design_of(f)
    found = score_gathered(gathered_of(f, design, np.arange(9)), design, ["logme"])
    assert found["logme"].notes == score(f, ["logme"], **CALIBRATION)["logme"].notes
    assert "no interval: 3 images" in found["logme"].notes[0]


def test_nulls_that_would_be_too_large_are_left_out_with_a_note(monkeypatch):
    monkeypatch.setattr(module, "NULL_BYTES", 100)
    f = draw(150, 8, 3)
    design = design_of(f)
    found = score_gathered(gathered_of(f, design, np.arange(150)), design, ["logme"])["logme"]
    expected = score(f, ["logme"], **CALIBRATION)["logme"]
    assert (found.null, found.notes) == (None, (NO_NULL,))
    assert found.interval.replicates == pytest.approx(expected.interval.replicates, rel=1e-10)


def test_broken_features_and_metrics_that_need_features_say_so():
    f = draw(90, 8, 3)
    x = f.features.copy()
    x[4] = np.nan
    f = FeatureSet(x, f.labels, f.boxes, None, f.image_ids)
    design = design_of(f, [*FROM_STATISTICS, "transrate"])
    found = score_gathered(gathered_of(f, design, np.arange(90)), design, ["logme", "transrate"])
    assert "1 of 90 objects hold NaN" in found["logme"].undefined
    good = draw(90, 8, 3)
    design = design_of(good)
    found = score_gathered(gathered_of(good, design, np.arange(90)), design, ["transrate", "parc"])
    assert all("only their statistics were kept" in s.undefined for s in found.values())


def test_nothing_was_read():
    with pytest.raises(InvalidFeatureSet, match="no batches"):
        Gathering(design_of(draw(20, 3, 2))).result()


def test_taking_out_is_the_inverse_of_adding():
    f = draw(150, 10, 4, offset=20.0)
    a, b = f.rows(np.arange(100)), f.rows(np.arange(100, 150))
    rest, direct = Statistics.of(f) - Statistics.of(b), Statistics.of(a)
    np.testing.assert_allclose(rest.mean, direct.mean, rtol=1e-13)
    np.testing.assert_allclose(
        np.tril(rest.moments.scatter), np.tril(direct.moments.scatter), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(rest.moments.cubic, direct.moments.cubic, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(rest.boxes.cross, direct.boxes.cross, rtol=1e-9, atol=1e-11)
    np.testing.assert_array_equal(rest.counts, direct.counts)
    assert (Statistics.of(f) - Statistics.of(f)).objects == 0


def test_memory_does_not_grow_with_the_number_of_objects(monkeypatch):
    monkeypatch.setattr(module, "HELD_ROWS", 1000)
    rng = np.random.default_rng(0)

    def peak(count: int) -> int:
        n = 500 * count
        labels, boxes = rng.integers(0, 5, n), rng.random((n, 4))
        design = Design.of(labels, boxes, np.arange(n) // 4, ["logme"], **CALIBRATION)
        tracemalloc.start()
        gathering = Gathering(design)
        for start in range(0, n, 500):
            gathering.add(np.arange(start, start + 500), rng.standard_normal((500, 64), dtype=np.float32))
        score_gathered(gathering.result(), design, ["logme", "h_score"])
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(2)
    assert peak(40) < 1.2 * peak(4)
