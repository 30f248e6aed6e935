"""All metrics by name, and the one function that scores a candidate."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from worker.metrics import (
    det_logme_like,
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
    sfda,
    tlogme,
    transrate,
    u_logme,
)
from worker.metrics.base import FeatureSet, Metric, Score, Undefined, UnknownMetric, Value
from worker.metrics.options import DEFAULTS, Options
from worker.metrics.prepared import Prepared
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
)

METRICS: Mapping[str, Metric] = MappingProxyType({m.name: m for module in MODULES for m in module.METRICS})


def lookup(names: Sequence[str]) -> list[Metric]:
    """The metrics of these names, in order and once each. Raises UnknownMetric."""
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UnknownMetric(
            f"unknown metric {', '.join(map(repr, unknown))}; there are: {', '.join(METRICS)}"
        )
    return [METRICS[name] for name in dict.fromkeys(names)]


def score(features: FeatureSet, metrics: Sequence[str], *, options: Options = DEFAULTS) -> dict[str, Score]:
    """Score one candidate by every metric named; shared steps are done once.

    Returns {name: Score} in the order asked for. Raises UnknownMetric; a metric that has no value for
    these features says so in its Score.
    """
    wanted = lookup(metrics)
    targets = Targets.of(features)
    rates = any(m.name.startswith("transrate") for m in wanted)
    prepared = Prepared(features.features, options, targets, rates=rates)
    return {metric.name: evaluate(metric, prepared, targets) for metric in wanted}


def evaluate(metric: Metric, prepared: Prepared, targets: Targets) -> Score:
    """One metric's Score; never raises for what the data cannot support."""
    start = time.perf_counter()
    try:
        value, notes = attempt(metric, prepared, targets)
        undefined = None
    except Undefined as reason:
        value, undefined, notes = None, str(reason), ()
    return Score(value, undefined, time.perf_counter() - start, notes + targets.absent_note())


def attempt(metric: Metric, prepared: Prepared, targets: Targets) -> Value:
    """The metric's finite Value; raises Undefined otherwise."""
    if metric.compute is None:
        raise Undefined(
            f"it is relative to the pool of candidates: score its terms ({', '.join(metric.terms)}) for each "
            "candidate and combine them with pool_scores"
        )
    try:
        with np.errstate(all="ignore"):
            value, notes = metric.compute(prepared, targets)
    except (ArithmeticError, np.linalg.LinAlgError) as error:
        raise Undefined(f"the features are out of the range of double precision: {error}") from error
    if not np.isfinite(value):
        raise Undefined("the features are out of the range of double precision: the result is not finite")
    return Value(value, notes)
