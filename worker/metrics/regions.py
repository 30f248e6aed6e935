"""Regions as rows of a metric: which of them, and what is to be predicted there.

On "regions" the classes are background (number 0 here, whatever its label) and then every class id + 1; the
continuous target is the IoU. On "jittered" the continuous targets are the deltas, and classes play no part.
"""

from __future__ import annotations

import numpy as np

from worker.metrics.base import RegionSet, Rows, RowSet, Undefined
from worker.metrics.targets import Targets

KINDS: tuple[Rows, ...] = ("objects", "regions", "jittered")
NAMES: dict[Rows, str] = {"objects": "object", "regions": "region", "jittered": "jittered region"}
NOT_SAMPLED = (
    "regions were not sampled: extract with region sampling (`Spec.regions`) and pass their features as "
    "`FeatureSet.regions`; there are none at the global level"
)
BACKGROUND = 0
DELTAS = ("dx", "dy", "dw", "dh")


def index_of(regions: RegionSet, rows: Rows) -> np.ndarray:
    """(n,) int positions of the regions that are these rows, ascending."""
    return np.flatnonzero(regions.jittered) if rows == "jittered" else np.arange(len(regions.labels))


def rows_of(regions: RegionSet, rows: Rows) -> RowSet:
    """Labels and continuous targets of these rows, as any metric's; without features."""
    index = index_of(regions, rows)
    if rows == "jittered":
        labels, continuous = np.zeros(len(index), dtype=np.int64), regions.deltas[index]
    else:
        labels, continuous = np.where(regions.jittered, regions.labels + 1, BACKGROUND), regions.ious[:, None]
    return RowSet(np.empty((len(index), 0)), labels, continuous)


def require_background(targets: Targets) -> None:
    """Raise Undefined unless there are both background and jittered regions."""
    if not len(targets.classes):
        raise Undefined("there are no regions")
    if targets.classes[0] != BACKGROUND:
        raise Undefined("there is no background region: nothing to tell objects from")
    if len(targets.classes) == 1:
        raise Undefined("there is no jittered region: nothing to tell background from")


def varying(targets: Targets) -> np.ndarray:
    """(K,) bool: the continuous targets that are not the same on all rows."""
    means, scatter = targets.box_moments
    return scatter.diagonal() > int(targets.counts.sum()) * np.square(1e-12 * means)
