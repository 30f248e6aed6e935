"""Regions as rows of a metric: which of them, and what is to be predicted there.

On "regions" and "single" the classes are background (number 0 here, whatever its label) and then every class id + 1; the
continuous target is the IoU. On "jittered" the continuous targets are the deltas, and classes play no part.
"""

from __future__ import annotations

import numpy as np

from worker.metrics.arrays import Flags, Ints
from worker.metrics.base import RegionSet, Rows, RowSet, Undefined
from worker.metrics.targets import Targets

KINDS: tuple[Rows, ...] = ("objects", "regions", "jittered", "single")
WITH_BACKGROUND: tuple[Rows, ...] = ("regions", "single")
NAMES: dict[Rows, str] = {
    "objects": "object",
    "regions": "region",
    "jittered": "jittered region",
    "single": "single region",
}
NOT_SAMPLED = (
    "regions were not sampled: extract with region sampling (`Spec.regions`) and pass their features as "
    "`FeatureSet.regions`; there are none at the global level"
)
NO_OBJECTS = "which object a region belongs to is not known: pass `objects` with the regions"
BACKGROUND = 0
DELTAS = ("dx", "dy", "dw", "dh")


def index_of(regions: RegionSet, rows: Rows) -> Ints:
    """(n,) positions of the regions that are these rows, ascending; raises Undefined where that is not known."""
    if rows == "single":
        if regions.objects is None:
            raise Undefined(NO_OBJECTS)
        return _single(regions, regions.objects)
    return np.flatnonzero(regions.jittered) if rows == "jittered" else np.arange(len(regions.labels))


def _single(regions: RegionSet, objects: np.ndarray) -> Ints:
    """Of every object the first jittered region, and of every image as much background, evenly from what it has."""
    own = np.flatnonzero(regions.jittered)
    _, first = np.unique(objects[own], return_index=True)
    chosen = own[first]
    images = np.zeros(len(regions.labels)) if regions.image_ids is None else regions.image_ids
    background = np.flatnonzero(~regions.jittered)
    background = background[np.argsort(images[background], kind="stable")]
    known, starts, counts = np.unique(images[background], return_index=True, return_counts=True)
    parts = [chosen]
    for image, start, count in zip(known, starts, counts, strict=True):
        wanted = min(int((images[chosen] == image).sum()), count)
        parts.append(background[start + np.arange(wanted) * count // max(wanted, 1)])
    return np.sort(np.concatenate(parts))


def rows_of(regions: RegionSet, rows: Rows) -> RowSet:
    """Labels and continuous targets of these rows, as any metric's; without features."""
    index = index_of(regions, rows)
    if rows == "jittered":
        labels, continuous = np.zeros(len(index), dtype=np.int64), regions.deltas[index]
    else:
        labels = np.where(regions.jittered, regions.labels + 1, BACKGROUND)[index]
        continuous = regions.ious[index, None]
    return RowSet(np.empty((len(index), 0)), labels, continuous)


def require_background(targets: Targets) -> None:
    """Raise Undefined unless there are both background and jittered regions."""
    if not len(targets.classes):
        raise Undefined("there are no regions")
    if targets.classes[0] != BACKGROUND:
        raise Undefined("there is no background region: nothing to tell objects from")
    if len(targets.classes) == 1:
        raise Undefined("there is no jittered region: nothing to tell background from")


def varying(targets: Targets) -> Flags:
    """(K,) bool: the continuous targets that are not the same on all rows."""
    means, scatter = targets.box_moments
    return np.asarray(scatter.diagonal() > int(targets.counts.sum()) * np.square(1e-12 * means))
