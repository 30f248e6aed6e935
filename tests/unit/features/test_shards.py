"""A reading cut into parts gives the bits of the undivided one; statistics of parts give its scores."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_extract import assert_same

from worker.features.extract import extract
from worker.features.reading import reading_of
from worker.features.shards import images_of_shard, joined, key_of_part, load_part, read_vectors
from worker.features.spec import Spec
from worker.features.statistics import design_of, gathered, key_of_statistics, read_statistics
from worker.metrics import FeatureSet, score
from worker.metrics.gathering import score_gathered

SPEC = Spec(layers=("backbone.c3", "neck.roi"), levels=("local", "global"))
METRICS = ["logme", "logme_boxes", "tlogme", "u_logme", "h_score"]
CALIBRATION = {"permutations": 4, "groups": 6, "seed": 2}


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 40])
def test_every_image_is_in_one_part_and_batches_stay_whole(detector, dataset, shards):
    reading = reading_of(detector, dataset, SPEC)
    parts = [images_of_shard(reading, position, shards) for position in range(shards)]
    assert sorted(image.id for part in parts for image in part) == [image.id for image in reading.images]
    if shards == 2:
        assert max(map(len, parts)) - min(map(len, parts)) <= 4
    with pytest.raises(ValueError, match="no part"):
        images_of_shard(reading, shards, shards)


@pytest.mark.parametrize("shards", [1, 3, 40])
def test_parts_joined_are_the_undivided_features(detector, dataset, tmp_path, shards):
    reading = reading_of(detector, dataset, SPEC)
    keys = [key_of_part(reading, position, shards) for position in range(shards)]
    assert len({*keys, reading.key}) == shards + 1
    for position, key in enumerate(keys):
        read_vectors(reading, images_of_shard(reading, position, shards)).save(tmp_path, key)
    found = joined(reading, (load_part(tmp_path, key) for key in keys))
    whole = extract(reading_of(detector, dataset, SPEC))
    assert_same(found, whole)
    assert (found.cost.parameters, found.cost.image_hw) == (whole.cost.parameters, whole.cost.image_hw)
    assert set(whole.seconds) - {"total"} <= set(found.seconds)


def test_a_part_is_readable_without_our_code(detector, dataset, tmp_path):
    reading = reading_of(detector, dataset, SPEC)
    path = read_vectors(reading, images_of_shard(reading, 0, 2)).save(tmp_path, key_of_part(reading, 0, 2))
    arrays = load_file(path)
    assert set(arrays["annotation_ids"]) < set(reading.objects.annotation_ids)
    assert len(arrays["features/neck.roi/local"]) == len(arrays["annotation_ids"])
    assert load_part(tmp_path, key_of_part(reading, 1, 2)) is None


def test_a_part_that_is_missing_or_comes_twice_is_noticed(detector, dataset):
    reading = reading_of(detector, dataset, SPEC)
    first, second = (read_vectors(reading, images_of_shard(reading, n, 2)) for n in range(2))
    for parts in ([first], [first, second, first]):
        with pytest.raises(AssertionError, match="exactly one part"):
            joined(reading, parts)


@pytest.mark.parametrize("shards", [1, 3, 40])
def test_statistics_of_parts_give_the_scores_of_the_features(detector, dataset, tmp_path, shards):
    reading = reading_of(detector, dataset, SPEC)
    design = design_of(reading, METRICS, **CALIBRATION)
    keys = [key_of_statistics(reading, design, position, shards) for position in range(shards)]
    for position, key in enumerate(keys):
        images = images_of_shard(reading, position, shards)
        read_statistics(reading, images, design).save(tmp_path, key)
    places, took = gathered(reading, (load_part(tmp_path, key) for key in keys))
    assert took.cost.parameters > 0
    whole = extract(reading_of(detector, dataset, SPEC))
    assert set(places) == set(whole.layers)
    for place, table in whole.layers.items():
        features = FeatureSet(table, whole.labels, whole.boxes, None, whole.image_ids)
        expected = score(features, METRICS, **CALIBRATION)
        found = score_gathered(places[place], design, METRICS)
        assert any(s.interval and s.null for s in expected.values())
        for name, s in expected.items():
            other = found[name]
            assert other.undefined == s.undefined
            if s.value is not None:
                assert other.value == pytest.approx(s.value, rel=1e-9)
                assert other.null.mean == pytest.approx(s.null.mean, rel=1e-9)
                assert other.interval.replicates == pytest.approx(s.interval.replicates, rel=1e-9)


def test_statistics_for_another_calibration_are_other_files(detector, dataset):
    reading = reading_of(detector, dataset, SPEC)
    designs = [
        design_of(reading, METRICS, **CALIBRATION),
        design_of(reading, METRICS),
        design_of(reading, ["logme"], **CALIBRATION),
        design_of(reading, METRICS, **(CALIBRATION | {"seed": 3})),
    ]
    assert len({key_of_statistics(reading, design, 0, 1) for design in designs}) == 4


def test_statistics_of_half_of_the_objects_are_noticed(detector, dataset):
    reading = reading_of(detector, dataset, SPEC)
    design = design_of(reading, METRICS)
    half = read_statistics(reading, images_of_shard(reading, 0, 2), design)
    with pytest.raises(AssertionError, match="are in the sample"):
        gathered(reading, [half])
    assert np.isfinite(half.arrays["neck.roi/local/point"]).all()
