"""All metrics by name, and the one function that scores a candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from worker.metrics import (
    det_logme_like,
    detection,
    etran,
    gbc,
    h_score,
    h_score_regularized,
    iou_logme,
    leep,
    logme,
    n_leep,
    nce,
    ncti,
    parc,
    region_evidence,
    region_h_score,
    scan,
    sfda,
    tlogme,
    transrate,
    u_logme,
)
from worker.metrics.base import FeatureSet, Metric, Rows, Score, UnknownMetric
from worker.metrics.composed import with_parts, with_sums
from worker.metrics.evaluate import evaluate
from worker.metrics.jackknife import groups_of, with_intervals
from worker.metrics.null import with_nulls
from worker.metrics.options import DEFAULTS, Options
from worker.metrics.prepared import Prepared
from worker.metrics.regions import KINDS, NAMES, index_of, missing, rows_of
from worker.metrics.targets import Targets

MODULES = (
    logme,
    tlogme,
    u_logme,
    iou_logme,
    det_logme_like,
    h_score,
    h_score_regularized,
    transrate,
    leep,
    nce,
    n_leep,
    parc,
    gbc,
    sfda,
    ncti,
    etran,
    region_evidence,
    region_h_score,
    detection,
)

METRICS: Mapping[str, Metric] = MappingProxyType({m.name: m for module in MODULES for m in module.METRICS})

# Those that read the candidate's own class probabilities and nothing of its features: one value for all layers.
OF_SOURCE = tuple(m.name for m in METRICS.values() if "source_probabilities" in m.needs)


def lookup(names: Sequence[str]) -> list[Metric]:
    """The metrics of these names, in order and once each. Raises UnknownMetric."""
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UnknownMetric(
            f"unknown metric {', '.join(map(repr, unknown))}; there are: {', '.join(METRICS)}"
        )
    return [METRICS[name] for name in dict.fromkeys(names)]


def score(
    features: FeatureSet,
    metrics: Sequence[str],
    *,
    permutations: int = 0,
    groups: int = 0,
    seed: int = 0,
    options: Options = DEFAULTS,
    check: Callable[[], None] | None = None,
) -> dict[str, Score]:
    """Score one candidate by every metric named, whatever their rows; shared steps are done once.

    permutations: of the targets for the null and z of every score (0: none; 20 is enough for one digit of z).
    groups: of images for the interval of every score (0: none; 20 is usual). seed: of both.
    check: called between permutations and groups; what it raises stops the scoring.
    Returns {name: Score} in the order asked for. Raises UnknownMetric; a metric that has no value for
    these features says so in its Score.
    """
    region_x = None if features.regions is None else features.regions.features
    return score_with(
        scan, features, features.features, region_x, metrics, permutations, groups, seed, options, check
    )


def score_with(
    engine: Any,
    features: FeatureSet,
    x: Any,
    region_x: Any,
    metrics: Sequence[str],
    permutations: int,
    groups: int,
    seed: int,
    options: Options,
    check: Callable[[], None] | None = None,
) -> dict[str, Score]:
    """`score` on an engine and its own form of the features, x (N, D) of the objects and region_x (R, D) of the
    regions (None without); the rest comes from `features`."""
    if permutations == 1 or permutations < 0 or groups < 0:
        raise ValueError(
            f"permutations must be 0 or at least 2, groups at least 0; got {permutations}, {groups}"
        )
    wanted = lookup(metrics)
    parts = with_parts(wanted)
    scores: dict[str, Score] = {}
    predicted: dict[Rows, Targets] = {}
    for rows in KINDS:
        own = [metric for metric in parts if metric.rows == rows]
        if not own:
            continue
        if reason := missing(features.regions, rows):
            scores |= {metric.name: Score(None, reason, 0.0) for metric in own}
            continue
        source, targets, group = _on_rows(features, x, region_x, rows)
        rates = any(m.name.startswith("transrate") for m in own)
        prepared = Prepared(source, options, targets, rates=rates, engine=engine, row=NAMES[rows])
        found = {metric.name: evaluate(metric, prepared, targets) for metric in own}
        if permutations:
            found = with_nulls(found, own, prepared, targets, permutations, seed, check, rows)
        if groups:
            found = with_intervals(found, own, prepared, targets, *group(groups, seed), check)
        scores |= found
        predicted[rows] = targets
    return with_sums(wanted, scores, predicted)


def _on_rows(
    features: FeatureSet, x: Any, region_x: Any, rows: Rows
) -> tuple[Any, Targets, Callable[[int, int], tuple[np.ndarray, int, tuple[str, ...]]]]:
    """Features, targets and groups of images of one kind of rows."""
    regions = features.regions
    if rows == "objects":
        n = len(features.labels)
        return x, Targets.of(features), lambda groups, seed: groups_of(features.image_ids, n, groups, seed)
    index = index_of(regions, rows)

    def group(groups: int, seed: int) -> tuple[np.ndarray, int, tuple[str, ...]]:
        # of all regions, so that replicates of different rows are without the same images
        of_all, count, note = groups_of(regions.image_ids, len(regions.labels), groups, seed)
        return of_all[index], count, note

    source = region_x if rows == "regions" else scan.Rows(region_x, index)
    return source, Targets.of(rows_of(regions, rows)), group
