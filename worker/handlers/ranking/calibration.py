"""How sure a score is, as it is kept beside the value: null, z and interval as JSON, the replicates as bytes."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from app.db import tables
from app.db.documents import ScoreDetails, ScoreFacts
from worker.metrics import Interval, Score
from worker.metrics.jackknife import LEVEL, jackknife_interval

PERMUTATIONS = 20
GROUPS = 20


def calibration_of(request: dict[str, Any]) -> dict[str, int]:
    """The options of `score` for null and interval; the seed is the ranking's, so all candidates share draws and groups."""
    if request.get("calibrate", True) is False:
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
    facts: ScoreFacts,
    zero: Score | None = None,
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
    gain_interval = None if gain is None else gain.interval
    details: ScoreDetails = {
        **facts,
        "notes": list(score.notes),
        "null": None
        if null is None
        else {"mean": null.mean, "std": null.std, "permutations": null.permutations},
        "z": score.z if null and score.z is not None and _finite(score.z) else None,
        "interval": _limits(interval),
        "zero_point": None if zero is None else zero.value,
        "gain": None if gain is None else gain.value,
        "gain_interval": _limits(gain_interval),
    }
    return tables.Score(
        ranking_id=ranking_id,
        checkpoint_id=checkpoint_id,
        metric=metric,
        layer=layer,
        level=level,
        value=score.value,
        undefined=score.undefined,
        seconds=score.seconds,
        details=details,
        replicates=None if interval is None else _bytes_of(interval),
        gain_replicates=None if gain_interval is None else _bytes_of(gain_interval),
    )


def gained(score: Score, zero: Score) -> Score | None:
    """The score less its zero point, None where either has no value.

    Its interval comes from replicates of both that leave out the same images, so an image's effect on both cancels. It has none
    where one of the two has none, or another number of groups.
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
    details = row.details
    return Score(
        row.value,
        row.undefined,
        row.seconds,
        tuple(details["notes"]) if details else (),
        z=details.get("z") if details else None,
        interval=_interval(row.value, row.replicates),
    )


def gain_interval_of(row: tables.Score) -> Interval | None:
    """Of the gain of a record, with what is needed to compare it."""
    return _interval(row.details.get("gain") if row.details else None, row.gain_replicates)


def _interval(value: float | None, replicates: bytes | None) -> Interval | None:
    if value is None or replicates is None:
        return None
    return jackknife_interval(value, np.frombuffer(replicates, dtype="<f8"), LEVEL)


def _limits(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _bytes_of(interval: Interval) -> bytes:
    return np.array(interval.replicates, dtype="<f8").tobytes()


def _finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)
