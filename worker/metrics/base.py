"""What goes into a metric and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from worker.metrics.prepared import Prepared
    from worker.metrics.targets import Targets


class InvalidFeatureSet(ValueError):
    """The arrays do not describe a set of objects; the message says which one and what to change."""


class UnknownMetric(KeyError):
    """A metric name that is not registered; the message lists the names that are."""

    def __str__(self) -> str:
        return str(self.args[0])


class Undefined(Exception):
    """Raised by a metric that has no value for this input. Becomes `Score.undefined`."""


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """One candidate's features of the target's objects at one layer. Arrays are never changed.

    features: (N, D) float, one row per labelled object. labels: (N,) int, class ids from 0.
    boxes: (N, 4) float, x1 y1 x2 y2 divided by the image's width and height, or None.
    source_probabilities: (N, Cs) float, the source head's class probabilities per object, or None.
    image_ids: (N,), the image each object lies in, or None.
    Raises InvalidFeatureSet on shapes, types or labels that cannot be meant. Values that make a metric
    undefined (NaN, a single class) are accepted here: each metric then says so.
    """

    features: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray | None = None
    source_probabilities: np.ndarray | None = None
    image_ids: np.ndarray | None = None

    def __post_init__(self) -> None:
        features = _matrix("features", self.features)
        n = len(features)
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "labels", _labels(self.labels, n))
        for name, width in (("boxes", 4), ("source_probabilities", None)):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _matrix(name, value, rows=n, columns=width))
        if self.image_ids is not None:
            ids = np.asarray(self.image_ids)
            if ids.shape != (n,):
                raise InvalidFeatureSet(
                    f"image_ids must have shape ({n},), one per row of features; got {ids.shape}"
                )
            object.__setattr__(self, "image_ids", ids)

    def rows(self, index: np.ndarray) -> FeatureSet:
        """The objects at `index` (int positions or a bool mask), in that order."""
        return FeatureSet(
            **{name: None if (v := getattr(self, name)) is None else v[index] for name in ARRAYS}
        )


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


def _labels(value: Any, n: int) -> np.ndarray:
    labels = np.asarray(value)
    if labels.shape != (n,):
        raise InvalidFeatureSet(f"labels must have shape ({n},), one per row of features; got {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        if n:
            raise InvalidFeatureSet(f"labels must be integer class ids from 0; got dtype {labels.dtype}")
        labels = labels.astype(np.int64)
    if n and labels.min() < 0:
        raise InvalidFeatureSet(
            f"labels must be class ids from 0; {int((labels < 0).sum())} are negative: remove those rows"
        )
    return labels.astype(np.int64, copy=False)


def scaled_over_pool(values: np.ndarray) -> np.ndarray:
    """(candidates,) values moved and scaled to [0, 1]; all equal values become 0.5."""
    low, high = values.min(), values.max()
    return np.full(len(values), 0.5) if high == low else (values - low) / (high - low)


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


@dataclass(frozen=True)
class Metric:
    """A transferability metric and what a reader must know of it.

    needs: of "features", "labels", "boxes", "source_probabilities". pool_relative: the value changes when
    a candidate joins the pool; such a metric combines the scores named in `terms`. null: what features
    without information reach. rederived: the formula follows a description, not the authors' code.
    higher_is_better: always so here; kept because readers ask. statistics: whether `score_statistics` gives it.
    compute: (Prepared, Targets) -> Value, or raises Undefined. None where pool_relative.
    """

    name: str
    title: str
    needs: frozenset[str]
    summary: str
    formula: str
    paper: str
    null: str
    invariant: str
    compute: Callable[[Prepared, Targets], Value] | None = None
    higher_is_better: bool = True
    pool_relative: bool = False
    terms: tuple[str, ...] = ()
    rederived: bool = False
    statistics: bool = False
    combine: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None
