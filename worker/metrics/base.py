"""What goes into a metric and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from worker.metrics.arrays import Flags, Floats, Ints

# What a metric's rows are: labelled objects; regions sampled from their annotations; of those the moved true boxes; of
# those one for each object, with as much background.
Rows = Literal["objects", "regions", "jittered", "single"]


class InvalidFeatureSet(ValueError):
    """The arrays do not describe a set of objects; the message says which one and what to change."""


class UnknownMetric(KeyError):
    """A metric name that is not registered; the message lists the names that are."""

    def __str__(self) -> str:
        return str(self.args[0])


class Undefined(Exception):
    """Raised by a metric that has no value for this input. Becomes `Score.undefined`."""


@dataclass(frozen=True, eq=False)
class RegionSet:
    """One candidate's features of regions sampled from the target's annotations, at one layer.

    A region is a true box moved and scaled (jittered) or a box that holds no object (background).
    features: (R, D) float. labels: (R,) int, the class id of the object, for background one id above all others: the
    number of categories. deltas: (R, 4) float, dx dy dw dh from the region to its true box as detectors define them:
    (cx_true - cx) / w, (cy_true - cy) / h, log(w_true / w), log(h_true / h); all NaN for background, which is how
    background is told. ious: (R,) float, the overlap with the true box; of background the highest with any.
    image_ids: (R,), the image each region lies in, or None. objects: (R,) int, which object each jittered region belongs to,
    in any numbering; not read for background. None where the metrics of single regions are not wanted.
    Raises InvalidFeatureSet on shapes, types or labels that cannot be meant.
    """

    features: np.ndarray
    labels: Ints
    deltas: np.ndarray
    ious: np.ndarray
    image_ids: np.ndarray | None = None
    objects: np.ndarray | None = None

    def __post_init__(self) -> None:
        features = _matrix("regions.features", self.features)
        n = len(features)
        labels = _labels(self.labels, n, "regions.labels")
        deltas = _matrix("regions.deltas", self.deltas, rows=n, columns=4)
        ious = np.asarray(self.ious)
        if ious.shape != (n,) or ious.dtype.kind not in "fiu":
            raise InvalidFeatureSet(
                f"regions.ious must be ({n},) real numbers; got {ious.shape} of {ious.dtype}"
            )
        for name, value in (("features", features), ("labels", labels), ("deltas", deltas), ("ious", ious)):
            object.__setattr__(self, name, value)
        for name in ("image_ids", "objects"):
            if (ids := getattr(self, name)) is not None:
                object.__setattr__(self, name, _ids(f"regions.{name}", ids, n))
        marks = np.unique(labels[~self.jittered])
        if len(marks) > 1:
            raise InvalidFeatureSet(
                "regions.labels must be the number of categories wherever deltas are NaN (background); "
                f"got {', '.join(map(str, marks[:5].tolist()))}"
            )
        if len(marks) and (labels[self.jittered] >= marks[0]).any():
            raise InvalidFeatureSet(
                f"regions.labels: {marks[0]} is background's, yet regions with deltas have it or a larger one"
            )

    @cached_property
    def jittered(self) -> Flags:
        """(R,) bool: the regions that belong to an object."""
        present: Flags = ~np.isnan(self.deltas)
        return np.asarray(present.any(axis=1))

    def rows(self, index: Ints | Flags) -> RegionSet:
        """The regions at `index` (int positions or a bool mask), in that order."""
        values = ((one.name, getattr(self, one.name)) for one in fields(self))
        taken: dict[str, Any] = {name: None if value is None else value[index] for name, value in values}
        return RegionSet(**taken)


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """One candidate's features of the target's objects at one layer. Arrays are never changed.

    features: (N, D) float, one row per labelled object. labels: (N,) int, class ids from 0.
    boxes: (N, 4) float, x1 y1 x2 y2 divided by the image's width and height, or None.
    source_probabilities: (N, Cs) float, the source head's class probabilities per object, or None.
    image_ids: (N,), the image each object lies in, or None.
    regions: features of sampled regions at the same layer, for the metrics whose rows they are, or None.
    Raises InvalidFeatureSet on shapes, types or labels that cannot be meant. Values that make a metric
    undefined (NaN, a single class) are accepted here: each metric then says so.
    """

    features: np.ndarray
    labels: Ints
    boxes: np.ndarray | None = None
    source_probabilities: np.ndarray | None = None
    image_ids: np.ndarray | None = None
    regions: RegionSet | None = None

    BOX_COLUMNS: ClassVar[int | None] = 4

    def __post_init__(self) -> None:
        features = _matrix("features", self.features)
        n = len(features)
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "labels", _labels(self.labels, n))
        for name, width in (("boxes", self.BOX_COLUMNS), ("source_probabilities", None)):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _matrix(name, value, rows=n, columns=width))
        if self.image_ids is not None:
            object.__setattr__(self, "image_ids", _ids("image_ids", self.image_ids, n))
        if self.regions is not None and self.regions.features.shape[1] != features.shape[1]:
            raise InvalidFeatureSet(
                f"regions.features must have the {features.shape[1]} columns of features, being of the same layer; "
                f"got {self.regions.features.shape[1]}"
            )

    def rows(self, index: Ints | Flags) -> FeatureSet:
        """The objects at `index` (int positions or a bool mask), in that order; without regions."""
        values = ((name, getattr(self, name)) for name in ARRAYS)
        taken: dict[str, Any] = {name: None if value is None else value[index] for name, value in values}
        return type(self)(**taken)


class RowSet(FeatureSet):
    """Rows of any kind: here `boxes` are any (N, K) continuous targets."""

    BOX_COLUMNS = None


ARRAYS = ("features", "labels", "boxes", "source_probabilities", "image_ids")


def _matrix(name: str, value: Any, rows: int | None = None, columns: int | None = None) -> np.ndarray:
    array = np.asarray(value)
    if (
        array.ndim != 2
        or (rows is not None and len(array) != rows)
        or (columns not in (None, array.shape[1]))
    ):
        want = f"({'N' if rows is None else rows}, {'D' if columns is None else columns})"
        raise InvalidFeatureSet(f"{name} must have shape {want}; got {array.shape}")
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise InvalidFeatureSet(f"{name} must be real numbers; got dtype {array.dtype}")
    return array


def _ids(name: str, value: Any, n: int) -> np.ndarray:
    ids = np.asarray(value)
    if ids.shape != (n,):
        raise InvalidFeatureSet(f"{name} must have shape ({n},), one per row of features; got {ids.shape}")
    return ids


def _labels(value: Any, n: int, name: str = "labels") -> Ints:
    labels = np.asarray(value)
    if labels.shape != (n,):
        raise InvalidFeatureSet(f"{name} must have shape ({n},), one per row of features; got {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        if n:
            raise InvalidFeatureSet(f"{name} must be integer class ids from 0; got dtype {labels.dtype}")
        labels = labels.astype(np.int64)
    if n and labels.min() < 0:
        raise InvalidFeatureSet(
            f"{name} must be class ids from 0; {int((labels < 0).sum())} are negative: remove those rows"
        )
    return labels.astype(np.int64, copy=False)


def scaled_over_pool(values: Floats) -> Floats:
    """(candidates,) values moved and scaled to [0, 1]; all equal values become 0.5."""
    low, high = values.min(), values.max()
    return np.full(len(values), 0.5) if high == low else (values - low) / (high - low)


@dataclass(frozen=True)
class Calibration:
    """What a score's null and interval are drawn from; what draws the same is comparable.

    permutations: of the targets for the null and z of every score (0: none; 20 is enough for one digit of z).
    groups: of images for the interval of every score (0: none; 20 is usual). seed: of both.
    check: called between permutations and groups; what it raises stops the scoring.
    Raises ValueError on a single permutation or negative numbers.
    """

    permutations: int = 0
    groups: int = 0
    seed: int = 0
    check: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        if self.permutations == 1 or self.permutations < 0 or self.groups < 0:
            raise ValueError(
                "permutations must be 0 or at least 2, groups at least 0; "
                f"got {self.permutations}, {self.groups}"
            )

    def pause(self) -> None:
        """Give `check` its chance to stop the scoring."""
        if self.check:
            self.check()


class Value(NamedTuple):
    """A metric's number and what a reader must know about it."""

    value: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Null:
    """The score with the targets permuted over the objects: what features that know nothing reach.

    mean, std: over the permutations (std with ddof 1). permutations: how many. seed: of the permutations.
    """

    mean: float
    std: float
    permutations: int
    seed: int


@dataclass(frozen=True)
class Interval:
    """Jackknife over groups of images (images, not objects, are the independent draws).

    low, high: `level` confidence limits around the value. std: standard error.
    replicates: (groups,) the value without each group, in the order of the groups.
    """

    low: float
    high: float
    std: float
    level: float
    replicates: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True)
class Score:
    """A metric's value for one candidate, or the reason why it has none.

    Exactly one of value and undefined is None. seconds: wall clock; a step that several metrics share
    counts for the first that needed it. z: (value - null.mean) / null.std where a null was asked for.
    """

    value: float | None
    undefined: str | None
    seconds: float
    notes: tuple[str, ...] = ()
    null: Null | None = None
    z: float | None = None
    interval: Interval | None = None

    def known(self) -> float:
        """The value. Raises Undefined where there is none."""
        if self.value is None:
            raise Undefined(str(self.undefined))
        return self.value
