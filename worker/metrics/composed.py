"""Scores that are sums of other scores of the same candidate, over rows of different kinds.

The rows of the terms are permuted independently of each other, so the means of their nulls add, and so do the
variances. The groups of images left out for an interval are the same for all terms, so the replicates add one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from worker.metrics.base import Null, Rows, Score
from worker.metrics.jackknife import jackknife_interval
from worker.metrics.metric import Metric, Sum
from worker.metrics.regions import NO_OBJECTS, NOT_SAMPLED
from worker.metrics.targets import Targets


def with_parts(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics, with the terms of sums in place of the sums; once each."""
    parts = [part for metric in metrics for part in (metric.sum_of.terms if metric.sum_of else (metric,))]
    return list({part.name: part for part in parts}.values())


def with_sums(
    metrics: Sequence[Metric], scores: Mapping[str, Score], targets: Mapping[Rows, Targets]
) -> dict[str, Score]:
    """The scores of `metrics`, in order, sums included; `scores` are those of `with_parts`."""
    return {m.name: _sum(m.sum_of, scores, targets) if m.sum_of else scores[m.name] for m in metrics}


def _sum(of: Sum, scores: Mapping[str, Score], targets: Mapping[Rows, Targets]) -> Score:
    parts = [scores[part.name] for part in of.terms]
    seconds = sum(part.seconds for part in parts)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    for part, score in zip(of.terms, parts, strict=True):
        if score.undefined in (NOT_SAMPLED, NO_OBJECTS):
            return Score(None, score.undefined, seconds)
        if score.value is None:
            return Score(None, f"its term {part.name} is undefined: {score.undefined}", seconds, notes)
    weights = np.array(of.weights(targets))
    value = float(weights @ np.array([part.known() for part in parts]))
    null, z = None, None
    nulls = [part.null for part in parts if part.null]
    if len(nulls) == len(parts):
        mean = float(weights @ np.array([each.mean for each in nulls]))
        std = float(np.linalg.norm(weights * np.array([each.std for each in nulls])))
        null = Null(mean, std, nulls[0].permutations, nulls[0].seed)
        z = (value - mean) / std if std > abs(mean) * 1e-12 else None
    interval = None
    intervals = [part.interval for part in parts if part.interval]
    if len(intervals) == len(parts):
        replicates = weights @ np.array([each.replicates for each in intervals])
        interval = jackknife_interval(value, replicates, intervals[0].level)
    return Score(value, None, seconds, notes, null, z, interval)
