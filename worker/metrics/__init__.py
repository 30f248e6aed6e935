"""Transferability metrics: how well a pretrained detector's features already explain a target dataset."""

from worker.metrics.base import (
    FeatureSet,
    InvalidFeatureSet,
    Metric,
    Score,
    UnknownMetric,
)
from worker.metrics.options import Options
from worker.metrics.registry import METRICS, score

__all__ = [
    "METRICS",
    "FeatureSet",
    "InvalidFeatureSet",
    "Metric",
    "Options",
    "Score",
    "UnknownMetric",
    "score",
]
