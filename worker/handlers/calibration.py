"""How sure a score is, as it is kept beside the value: null, z and interval as JSON, the replicates as bytes."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from app.db import tables
from worker.metrics import Interval, Score
from worker.metrics.jackknife import LEVEL, jackknife_interval

PERMUTATIONS = 20
GROUPS = 20


def calibration_of(request: dict[str, Any]) -> dict[str, int]:
    """What `score` is asked for besides values; the seed is the ranking's, so candidates share draws and groups."""
    if not request.get("calibrate", True):
        return {}
    return {"permutations": PERMUTATIONS, "groups": GROUPS, "seed": request.get("seed") or 0}


def score_row(
    score: Score,
    *,
    ranking_id: str,
    checkpoint_id: str,
    metric: str,
    layer: str,
    level: str,
    zero: Score | None = None,
    **facts: Any,
) -> tables.Score:
    """The record of a score; `facts` are kept with its details. Numbers that overflowed are left out.

    zero: of the same architecture with its initial weights on the same rows, None where it is not known.
    """
    null, interval = score.null, score.interval
    gain = None if zero is None else gained(score, zero)
    if null and not _finite(null.mean, null.std):
        null = None
    if interval and not _finite(interval.low, interval.high, *interval.replicates):
        interval = None
    return tables.Score(
        ranking_id=ranking_id,
        checkpoint_id=checkpoint_id,
        metric=metric,
        layer=layer,
        level=level,
        value=score.value,
        undefined=score.undefined,
        seconds=score.seconds,
        details={
            **facts,
            "notes": list(score.notes),
            "null": null and {"mean": null.mean, "std": null.std, "permutations": null.permutations},
            "z": score.z if null and score.z is not None and _finite(score.z) else None,
            "interval": interval and [interval.low, interval.high],
            "zero_point": zero and zero.value,
            "gain": gain and gain.value,
            "gain_interval": gain and gain.interval and [gain.interval.low, gain.interval.high],
        },
        replicates=interval and _bytes_of(interval),
        gain_replicates=gain and gain.interval and _bytes_of(gain.interval),
    )


def gained(score: Score, zero: Score) -> Score | None:
    """The score less its zero point, None where either has no value.

    Its interval comes from both without the same images, so what an image does to both cancels; none where either has none
    or another number of groups.
    """
    if score.value is None or zero.value is None:
        return None
    value, own, its = score.value - zero.value, score.interval, zero.interval
    interval = None
    if own and its and len(own.replicates) == len(its.replicates):
        left = np.array(own.replicates) - np.array(its.replicates)
        interval = jackknife_interval(value, left, LEVEL) if np.isfinite(left).all() else None
    return replace(score, value=value, null=None, z=None, interval=interval)


def score_of(row: tables.Score) -> Score:
    """A record as a score of the library, with what is needed to compare it. The null stays with the record."""
    details = row.details or {}
    return Score(
        row.value,
        row.undefined,
        row.seconds,
        tuple(details.get("notes") or ()),
        z=details.get("z"),
        interval=_interval(row.value, row.replicates),
    )


def gain_interval_of(row: tables.Score) -> Interval | None:
    """Of the gain of a record, with what is needed to compare it."""
    return _interval((row.details or {}).get("gain"), row.gain_replicates)


def _interval(value: float | None, replicates: bytes | None) -> Interval | None:
    if value is None or replicates is None:
        return None
    return jackknife_interval(value, np.frombuffer(replicates, dtype="<f8"), LEVEL)


def _bytes_of(interval: Interval) -> bytes:
    return np.array(interval.replicates, dtype="<f8").tobytes()


def _finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)
