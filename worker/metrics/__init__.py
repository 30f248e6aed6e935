"""Transferability metrics: how well a pretrained detector's features already explain a target dataset."""

from worker.metrics.base import FeatureSet, Interval, InvalidFeatureSet, Null, RegionSet, Score, UnknownMetric
from worker.metrics.baselines import BASELINES, static_scores
from worker.metrics.metric import Metric
from worker.metrics.options import Options
from worker.metrics.pool import Comparison, compare, pool_scores, with_terms
from worker.metrics.registry import METRICS, METRICS_VERSION, OF_SOURCE, score
from worker.metrics.statistics import Statistics, accumulate, score_statistics

__all__ = [
    "BASELINES",
    "METRICS",
    "METRICS_VERSION",
    "OF_SOURCE",
    "Comparison",
    "FeatureSet",
    "Interval",
    "InvalidFeatureSet",
    "Metric",
    "Null",
    "Options",
    "RegionSet",
    "Score",
    "Statistics",
    "UnknownMetric",
    "accumulate",
    "compare",
    "pool_scores",
    "score",
    "score_statistics",
    "static_scores",
    "with_terms",
]
