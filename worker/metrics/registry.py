"""All metrics by name, and the one function that scores a candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

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
    scan,
    sfda,
    tlogme,
    transrate,
    u_logme,
)
from worker.metrics.base import FeatureSet, Metric, Score, UnknownMetric
from worker.metrics.evaluate import evaluate
from worker.metrics.jackknife import with_intervals
from worker.metrics.null import with_nulls
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
    """Score one candidate by every metric named; shared steps are done once.

    permutations: of the targets for the null and z of every score (0: none; 20 is enough for one digit of z).
    groups: of images for the interval of every score (0: none; 20 is usual). seed: of both.
    check: called between permutations and groups; what it raises stops the scoring.
    Returns {name: Score} in the order asked for. Raises UnknownMetric; a metric that has no value for
    these features says so in its Score.
    """
    return score_with(scan, features, features.features, metrics, permutations, groups, seed, options, check)


def score_with(
    engine: Any,
    features: FeatureSet,
    x: Any,
    metrics: Sequence[str],
    permutations: int,
    groups: int,
    seed: int,
    options: Options,
    check: Callable[[], None] | None = None,
) -> dict[str, Score]:
    """`score` on an engine and its own form x (N, D) of the features; the rest comes from `features`."""
    if permutations == 1 or permutations < 0 or groups < 0:
        raise ValueError(
            f"permutations must be 0 or at least 2, groups at least 0; got {permutations}, {groups}"
        )
    wanted = lookup(metrics)
    targets = Targets.of(features)
    rates = any(m.name.startswith("transrate") for m in wanted)
    prepared = Prepared(x, options, targets, rates=rates, engine=engine)
    scores = {metric.name: evaluate(metric, prepared, targets) for metric in wanted}
    if permutations:
        scores = with_nulls(scores, wanted, prepared, targets, permutations, seed, check)
    if groups:
        scores = with_intervals(scores, wanted, prepared, targets, features.image_ids, groups, seed, check)
    return scores
