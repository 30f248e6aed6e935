"""Scores that are sums of other scores of the same candidate, over rows of different kinds.

The rows of the terms are permuted independently of each other, so the means of their nulls add, and so do the
variances. The groups of images left out for an interval are the same for all terms, so the replicates add one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from worker.metrics.base import Metric, Null, Rows, Score
from worker.metrics.jackknife import jackknife_interval
from worker.metrics.regions import NO_OBJECTS, NOT_SAMPLED
from worker.metrics.targets import Targets


def with_parts(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics, with the terms of sums in place of the sums; once each."""
    parts = [part for metric in metrics for part in (metric.sum_of or (metric,))]
    return list({part.name: part for part in parts}.values())


def with_sums(
    metrics: Sequence[Metric], scores: Mapping[str, Score], targets: Mapping[Rows, Targets]
) -> dict[str, Score]:
    """The scores of `metrics`, in order, sums included; `scores` are those of `with_parts`."""
    return {m.name: _sum(m, scores, targets) if m.sum_of else scores[m.name] for m in metrics}


def _sum(metric: Metric, scores: Mapping[str, Score], targets: Mapping[Rows, Targets]) -> Score:
    parts = [scores[part.name] for part in metric.sum_of]
    seconds = sum(part.seconds for part in parts)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    for part, score in zip(metric.sum_of, parts, strict=True):
        if score.undefined in (NOT_SAMPLED, NO_OBJECTS):
            return Score(None, score.undefined, seconds)
        if score.value is None:
            return Score(None, f"its term {part.name} is undefined: {score.undefined}", seconds, notes)
    weights = np.array(metric.weights(targets))
    value = float(weights @ [part.value for part in parts])
    null, z = None, None
    if all(part.null for part in parts):
        mean = float(weights @ [part.null.mean for part in parts])
        std = float(np.linalg.norm(weights * [part.null.std for part in parts]))
        null = Null(mean, std, parts[0].null.permutations, parts[0].null.seed)
        z = (value - mean) / std if std > abs(mean) * 1e-12 else None
    interval = None
    if all(part.interval for part in parts):
        replicates = weights @ np.array([part.interval.replicates for part in parts])
        interval = jackknife_interval(value, replicates, parts[0].interval.level)
    return Score(value, None, seconds, notes, null, z, interval)
