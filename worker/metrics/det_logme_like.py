"""A score like Det-LogME: U-LogME and IoU-LogME, each scaled over the pool of candidates.

Source: re-derived from descriptions of "Det-LogME" (WACV 2024, arXiv 2403.09432); the paper's weights are not
known here, so none of its numbers can be expected: hence the name.
"""

from __future__ import annotations

from collections.abc import Mapping

from worker.metrics.arrays import Floats
from worker.metrics.base import scaled_over_pool
from worker.metrics.changes import OF_EVIDENCE
from worker.metrics.metric import Metric, Pooled


def combine(terms: Mapping[str, Floats]) -> Floats:
    """The score of every candidate from the terms of all."""
    return scaled_over_pool(terms["u_logme"]) + scaled_over_pool(terms["iou_logme"])


METRICS = (
    Metric(
        name="det_logme_like",
        title="Det-LogME-like",
        needs=frozenset({"features", "labels", "boxes"}),
        summary="What, where and overlap together, relative to the other candidates.",
        formula="u_logme + iou_logme, each scaled to [0, 1] over the pool",
        paper="after Det-LogME, WACV 2024, arXiv 2403.09432",
        null="none: relative to the pool",
        unchanged=OF_EVIDENCE,
        pooled=Pooled(("u_logme", "iou_logme"), combine),
        rederived=True,
    ),
)
