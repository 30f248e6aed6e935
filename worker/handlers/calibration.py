"""How sure a score is, as it is kept beside the value: null, z and interval as JSON, the replicates as bytes."""

import math
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
    zero_point: float | None = None,
    **facts: Any,
) -> tables.Score:
    """The record of a score; `facts` are kept with its details. Numbers that overflowed are left out.

    zero_point: the value of the same architecture with its initial weights, None where it is not known.
    """
    null, interval = score.null, score.interval
    known = score.value is not None and zero_point is not None
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
            "zero_point": zero_point,
            "gain": score.value - zero_point if known else None,
        },
        replicates=interval and np.array(interval.replicates, dtype="<f8").tobytes(),
    )


def score_of(row: tables.Score) -> Score:
    """A record as a score of the library, with what is needed to compare it. The null stays with the record."""
    details = row.details or {}
    return Score(
        row.value,
        row.undefined,
        row.seconds,
        tuple(details.get("notes") or ()),
        z=details.get("z"),
        interval=_interval(row),
    )


def _interval(row: tables.Score) -> Interval | None:
    if row.value is None or row.replicates is None:
        return None
    return jackknife_interval(row.value, np.frombuffer(row.replicates, dtype="<f8"), LEVEL)


def _finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)
