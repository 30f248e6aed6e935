"""Region metrics from statistics gathered while reading are those from the region features, however the reading is cut."""

import dataclasses

import numpy as np
import pytest

from worker.features.extract import extract
from worker.features.reading import reading_of
from worker.features.regions import RegionSampling
from worker.features.shards import images_of_shard, load_part
from worker.features.spec import Spec
from worker.features.statistics import design_of, gathered, key_of_statistics, read_statistics
from worker.metrics import FeatureSet, score
from worker.metrics.base import RegionSet
from worker.metrics.gathering import score_gathered

SPEC = Spec(
    layers=("backbone.c3", "backbone.c4"),
    levels=("local", "global"),
    regions=RegionSampling(jittered=3, background=2, hard=0.5),
)
OF_REGIONS = [
    "logme_regions",
    "logme_deltas",
    "logme_iou",
    "h_score_regions",
    "h_score_deltas",
    "h_score_iou",
]
METRICS = ["logme", "tlogme", *OF_REGIONS, "detection_evidence", "detection_h_score"]
CALIBRATION = {"permutations": 4, "groups": 6, "seed": 2}


@pytest.mark.parametrize("shards", [1, 3])
def test_statistics_of_parts_give_the_scores_of_the_region_features(detector, dataset, tmp_path, shards):
    reading = reading_of(detector, dataset, SPEC)
    design = design_of(reading, METRICS, **CALIBRATION)
    keys = [key_of_statistics(reading, design, position, shards) for position in range(shards)]
    for position, key in enumerate(keys):
        read_statistics(reading, images_of_shard(reading, position, shards), design).save(tmp_path, key)
    places, _ = gathered(reading, (load_part(tmp_path, key) for key in keys))
    whole = extract(reading_of(detector, dataset, SPEC))
    assert set(places) == set(whole.layers)
    regions = whole.regions
    for (layer, level), table in whole.layers.items():
        own = None
        if level == "local":
            own = RegionSet(
                whole.region_layers[layer], regions.labels, regions.deltas, regions.ious, regions.image_ids
            )
        features = FeatureSet(table, whole.labels, whole.boxes, None, whole.image_ids, own)
        expected = score(features, METRICS, **CALIBRATION)
        found = score_gathered(places[layer, level], design, METRICS)
        assert found.keys() == expected.keys()
        for name, one in expected.items():
            other = found[name]
            if level == "global" and name not in ("logme", "tlogme"):
                assert one.value is None
                assert other.value is None
                continue
            assert other.undefined == one.undefined, name
            assert one.value is not None, (name, one.undefined)
            assert other.value == pytest.approx(one.value, rel=1e-9, abs=1e-9), name
            assert other.null.mean == pytest.approx(one.null.mean, rel=1e-9, abs=1e-9), name
            assert other.interval.replicates == pytest.approx(one.interval.replicates, rel=1e-9, abs=1e-9)


def test_other_metrics_of_regions_are_other_statistics(detector, dataset):
    reading = reading_of(detector, dataset, SPEC)
    plain = reading_of(detector, dataset, dataclasses.replace(SPEC, regions=None))
    keys = [
        key_of_statistics(one, design_of(one, metrics), 0, 1)
        for one in (reading, plain)
        for metrics in (["logme"], ["logme_deltas"], METRICS)
    ]
    assert len(set(keys[:3])) == 3
    assert len(set(keys[3:])) == 1, "without regions there is nothing more to gather"
    assert not set(keys[:3]) & set(keys[3:])


def test_regions_that_were_left_out_are_noticed(detector, dataset):
    reading = reading_of(detector, dataset, SPEC)
    design = design_of(reading, METRICS)
    part = read_statistics(reading, reading.images, design)
    name = "backbone.c3/local/rows/jittered/groups/0/numbers"
    fewer = part.arrays[name] - np.array([1, 0, 0, 0])
    with pytest.raises(AssertionError, match="107 of 108 regions"):
        gathered(reading, [dataclasses.replace(part, arrays=part.arrays | {name: fewer})])
