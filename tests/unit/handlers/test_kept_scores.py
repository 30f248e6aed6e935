"""Scores as records and back: what is compared later is what was computed."""

import json
import math

import numpy as np
import pytest

from app.db import tables
from worker.handlers.ranking.calibration import calibration_of, gain_interval_of, score_of, score_row
from worker.handlers.ranking.pool import per_candidate, pool_rows
from worker.metrics import FeatureSet, Interval, Null, Score, compare, score

KEY = {"ranking_id": "rk_1", "checkpoint_id": "ckpt_1", "layer": "backbone.c4", "level": "local", "facts": {}}


def scored(signal: float, metrics: list[str], **calibration: int) -> dict[str, Score]:
    rng = np.random.default_rng(int(signal * 10))
    labels = np.arange(120) % 3
    features = signal * np.eye(3, 6)[labels] + rng.standard_normal((120, 6))
    boxes = np.sort(rng.random((120, 4)), axis=1)[:, [0, 1, 2, 3]]
    return score(
        FeatureSet(features, labels, boxes, image_ids=np.arange(120) // 4),
        metrics,
        **calibration or calibration_of({"seed": 3}),
    )


def test_a_kept_score_compares_like_the_score_itself() -> None:
    scores = {
        name: scored(signal, ["logme"])["logme"] for name, signal in (("a", 2.0), ("b", 1.9), ("c", 0.0))
    }
    kept = {name: score_of(score_row(each, metric="logme", **KEY)) for name, each in scores.items()}
    assert compare(kept, "logme") == compare(scores, "logme")
    assert [each.z for each in kept.values()] == [each.z for each in scores.values()]


def test_the_record_is_small_and_plain() -> None:
    row = score_row(
        scored(1.0, ["logme"])["logme"], metric="logme", **KEY | {"facts": {"objects": 120, "dimensions": 6}}
    )
    assert len(row.replicates) == 20 * 8
    details = json.loads(json.dumps(row.details, allow_nan=False))
    assert set(details) == {
        "objects",
        "dimensions",
        "notes",
        "null",
        "z",
        "interval",
        "zero_point",
        "gain",
        "gain_interval",
    }
    assert details["interval"][0] < row.value < details["interval"][1]


def test_no_calibration_is_asked_for_or_kept() -> None:
    assert calibration_of({"calibrate": False, "seed": 3}) == {}
    row = score_row(Score(1.0, None, 0.1), metric="logme", **KEY)
    assert (row.details["null"], row.details["z"], row.details["interval"], row.replicates) == (None,) * 4
    assert score_of(row).interval is None


def test_the_gain_is_kept_where_both_values_are_known() -> None:
    def of(value: float | None) -> Score:
        return Score(value, None if value is not None else "why", 0.1)

    def kept(value: float | None, zero_point: float | None) -> tuple:
        row = score_row(of(value), metric="logme", zero=of(zero_point), **KEY)
        assert (row.details["gain_interval"], row.gain_replicates) == (None, None)
        return row.details["zero_point"], row.details["gain"]

    assert kept(0.75, 0.25) == (0.25, 0.5)
    assert kept(None, 0.25) == (0.25, None)
    assert kept(0.75, None) == kept(None, None) == (None, None)


def test_the_interval_of_a_gain_is_that_of_the_difference_without_the_same_images() -> None:
    own, zero = (scored(signal, ["logme"])["logme"] for signal in (2.0, 0.5))
    row = score_row(own, metric="logme", zero=zero, **KEY)
    found = gain_interval_of(row)
    differences = np.array(own.interval.replicates) - zero.interval.replicates
    assert found.replicates == pytest.approx(differences, abs=1e-15)
    std = math.sqrt(19 / 20 * np.square(differences - differences.mean()).sum())
    assert found.std == pytest.approx(std, rel=1e-12)
    assert row.details["gain_interval"] == [found.low, found.high]
    assert found.low < row.details["gain"] < found.high
    # of itself there is nothing to gain, and no doubt about it
    same = score_row(own, metric="logme", zero=own, **KEY)
    assert (same.details["gain"], same.details["gain_interval"]) == (0.0, [0.0, 0.0])
    fewer = scored(0.5, ["logme"], groups=10, seed=3)["logme"]
    assert score_row(own, metric="logme", zero=fewer, **KEY).details["gain_interval"] is None


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_numbers_that_overflowed_are_left_out(bad: float) -> None:
    wild = Score(
        1.0, None, 0.1, null=Null(bad, 1.0, 20, 0), z=bad, interval=Interval(bad, 2.0, 1.0, 0.95, (1.0, bad))
    )
    row = score_row(wild, metric="logme", **KEY)
    json.dumps(row.details, allow_nan=False)
    assert (row.details["null"], row.details["z"], row.details["interval"], row.replicates) == (None,) * 4


def test_a_metric_of_the_pool_has_an_interval_from_its_terms() -> None:
    asked = ["det_logme_like"]
    rows: list[tables.Score] = []
    for id, signal in (("ckpt_1", 2.0), ("ckpt_2", 0.5)):
        for metric, each in scored(signal, per_candidate(asked)).items():
            rows.append(score_row(each, metric=metric, **KEY | {"checkpoint_id": id}))
    found = {row.checkpoint_id: row for row in pool_rows(rows, asked)}
    assert set(found) == {"ckpt_1", "ckpt_2"}
    for row in found.values():
        assert row.value is not None
        assert "pool of 2" in row.details["notes"][0]
        assert row.details["interval"][0] <= row.value <= row.details["interval"][1]
        assert len(row.replicates) == 20 * 8
