"""All metrics by name, and the one function that scores a candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

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
from worker.metrics.base import Calibration, FeatureSet, Rows, Score, Undefined, UnknownMetric
from worker.metrics.composed import with_parts, with_sums
from worker.metrics.engine import Source
from worker.metrics.evaluate import evaluate
from worker.metrics.jackknife import Groups, groups_of, with_intervals
from worker.metrics.metric import Metric
from worker.metrics.null import with_nulls
from worker.metrics.options import DEFAULTS, Options
from worker.metrics.prepared import Prepared
from worker.metrics.regions import KINDS, NAMES, NOT_SAMPLED, index_of, rows_of
from worker.metrics.targets import Targets
from worker.metrics.threads import threads_for

# Raised when a metric gives other numbers than before: scores that were kept with another are not to be compared.
METRICS_VERSION = 2

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
    source = Source(scan, features, features.features, region_x)
    return score_source(source, metrics, Calibration(permutations, groups, seed, check), options)


def score_source(
    source: Source, metrics: Sequence[str], calibration: Calibration, options: Options
) -> dict[str, Score]:
    """`score` of a candidate on any engine."""
    features = source.features
    rows = max(len(features.labels), 0 if features.regions is None else len(features.regions.labels))
    with threads_for(min(rows, features.features.shape[1])):
        return _score(source, metrics, calibration, options)


def _score(
    source: Source, metrics: Sequence[str], calibration: Calibration, options: Options
) -> dict[str, Score]:
    wanted = lookup(metrics)
    parts = with_parts(wanted)
    scores: dict[str, Score] = {}
    predicted: dict[Rows, Targets] = {}
    for rows in KINDS:
        own = [metric for metric in parts if metric.rows == rows]
        if not own:
            continue
        try:
            x, targets, groups = _placed(source, rows, calibration)
        except Undefined as reason:
            scores |= {metric.name: Score(None, str(reason), 0.0) for metric in own}
            continue
        rates = any("coding_rates" in m.reads for m in own)
        prepared = Prepared(x, options, targets, rates=rates, engine=source.engine, row=NAMES[rows])
        values = {metric.name: evaluate(metric, prepared, targets) for metric in own}
        if calibration.permutations:
            values = with_nulls(values, own, prepared, targets, calibration, rows)
        if groups:
            values = with_intervals(values, own, prepared, targets, groups, calibration)
        scores |= values
        predicted[rows] = targets
    return with_sums(wanted, scores, predicted)


def _placed(source: Source, rows: Rows, calibration: Calibration) -> tuple[Any, Targets, Groups | None]:
    """Features, targets and (where intervals are wanted) groups of images of one kind of rows; raises Undefined."""
    features, regions = source.features, source.features.regions
    if rows == "objects":
        n = len(features.labels)
        groups = groups_of(features.image_ids, n, calibration) if calibration.groups else None
        return source.x, Targets.of(features), groups
    if regions is None:
        raise Undefined(NOT_SAMPLED)
    index = index_of(regions, rows)
    groups = None
    if calibration.groups:  # of all regions, so that replicates of different rows are without the same images
        groups = groups_of(regions.image_ids, len(regions.labels), calibration).rows(index)
    x = source.region_x if rows == "regions" else scan.Selected(source.region_x, index)
    return x, Targets.of(rows_of(regions, rows)), groups
