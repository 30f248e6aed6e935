"""Statistics of features and targets that can be gathered in batches and added: the features need not be kept.

They hold all that LogME, LogME on boxes, TLogME, U-LogME, the H-scores, ETran's regression score and the metrics over
regions (each kind of rows in statistics of its own) need, in memory that depends on D and C but not on N. Merging follows
Chan, Golub and LeVeque (1983): everything is kept around its own mean, so large offsets cost no digits. With no more
objects than dimensions X'X holds rounding alone in many directions; LogME then agrees with that from the features to 5e-6,
otherwise, like all others, to 1e-8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from worker.metrics import scan
from worker.metrics.arrays import Floats, Ints
from worker.metrics.base import FeatureSet, InvalidFeatureSet, Score, Undefined
from worker.metrics.columns import TargetColumns, no_columns
from worker.metrics.engine import Scatter
from worker.metrics.evaluate import evaluate
from worker.metrics.moments import Moments
from worker.metrics.options import DEFAULTS, Options
from worker.metrics.prepared import Columns, Prepared, feature_fault
from worker.metrics.registry import lookup
from worker.metrics.targets import Kind, Targets

OF_OBJECTS = (
    "these are statistics of objects, not of regions: gather both with `Gathering` and read score_gathered"
)
NEEDS_FEATURES = "it needs the features themselves; only their statistics were kept"


@dataclass(frozen=True, eq=False)
class BoxStatistics:
    """Per class, in the order of the classes. means (C, K), scatter (C, K, K) around the means,
    cross (C, K, D): products of boxes and features, each around its class mean. largest: absolute value.
    bad: objects whose box is not finite. Boxes have K = 4 columns, other continuous targets any number.
    """

    means: Floats
    scatter: Floats
    cross: Floats
    largest: float
    bad: int


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of a number of objects: `a + b` is the statistics of both together, to rounding.

    mean (D,). moments: around the mean. classes (C,) ids, ascending. counts (C,). class_means (C, D).
    boxes: None where no boxes were given. bad: objects left out because a feature was not finite.
    largest: the largest absolute feature.
    """

    mean: Floats
    moments: Moments
    classes: Ints
    counts: Floats
    class_means: Floats
    boxes: BoxStatistics | None
    bad: int
    largest: float

    @classmethod
    def of(cls, features: FeatureSet, options: Options = DEFAULTS) -> Statistics:
        """Statistics of one batch."""
        rows = np.abs(features.features).max(axis=1, initial=0)
        good = np.isfinite(rows)
        if not good.all():
            kept = cls.of(features.rows(good), options)
            return replace(kept, bad=int((~good).sum()))
        targets = Targets.of(features)
        x = features.features
        n, d = x.shape
        mean = scan.column_means(x, options.block_rows) if n else np.zeros(d)
        total = scan.scatter(x, mean, no_columns(n), options)
        labels = targets.columns("classes")
        counts = targets.counts.astype(np.float64)
        sums = scan.cross_products(x, mean, labels, options.block_rows)
        offsets = sums / counts[:, None]
        return cls(
            mean=mean,
            moments=Moments(n, total.matrix, total.cubic, total.quartic),
            classes=targets.classes,
            counts=counts,
            class_means=mean + offsets,
            boxes=_box_statistics(features, targets, mean, offsets, options),
            bad=0,
            largest=float(rows.max(initial=0.0)),
        )

    @property
    def objects(self) -> int:
        return self.moments.objects

    def __add__(self, other: Statistics) -> Statistics:
        if len(self.mean) != len(other.mean):
            raise InvalidFeatureSet(
                f"cannot add statistics of {len(self.mean)} and {len(other.mean)} feature dimensions"
            )
        if (self.boxes is None) != (other.boxes is None) and self.objects and other.objects:
            raise InvalidFeatureSet("cannot add statistics with boxes to statistics without")
        if not self.objects or not other.objects:
            full, empty = (other, self) if not self.objects else (self, other)
            return replace(full, bad=full.bad + empty.bad)
        n = self.objects + other.objects
        step = (other.mean - self.mean) * (other.objects / n)
        mean = self.mean + step
        moments = self.moments.around(-step).plus(other.moments.around(other.mean - mean))
        classes = np.union1d(self.classes, other.classes)
        a, b = _aligned(self, classes), _aligned(other, classes)
        counts = a.counts + b.counts
        share = (b.counts / counts)[:, None]
        apart = b.class_means - a.class_means
        return Statistics(
            mean=mean,
            moments=moments,
            classes=classes,
            counts=counts,
            class_means=a.class_means + share * apart,
            boxes=_merged_boxes(a, b, share, apart),
            bad=self.bad + other.bad,
            largest=max(self.largest, other.largest),
        )

    def __sub__(self, other: Statistics) -> Statistics:
        """Without the objects of `other`, which must be among these; `largest` stays. Classes left empty drop out."""
        if not other.objects:
            return replace(self, bad=self.bad - other.bad)
        n = self.objects - other.objects
        if n < 1:
            return _nothing(self)
        shift = (self.mean - other.mean) * (other.objects / n)
        gone = other.moments.around(other.mean - self.mean)
        counts, taken = self.counts, _aligned(other, self.classes)
        left = counts - taken.counts
        stay = left > 0
        share = (taken.counts[stay] / left[stay])[:, None]
        apart = (self.class_means - taken.class_means)[stay]
        boxes = None
        if self.boxes is not None and taken.boxes is not None:
            mine, theirs = self.boxes, taken.boxes
            step = (mine.means - theirs.means)[stay]
            weight = counts[stay][:, None] * share
            boxes = BoxStatistics(
                means=mine.means[stay] + share * step,
                scatter=(mine.scatter - theirs.scatter)[stay] - weight[:, :, None] * _outer(step),
                cross=(mine.cross - theirs.cross)[stay]
                - weight[:, :, None] * step[:, :, None] * apart[:, None, :],
                largest=mine.largest,
                bad=mine.bad - theirs.bad,
            )
        return Statistics(
            mean=self.mean + shift,
            moments=self.moments.plus(gone, -1).at_mean(shift),
            classes=self.classes[stay],
            counts=left[stay],
            class_means=self.class_means[stay] + share * apart,
            boxes=boxes,
            bad=self.bad - other.bad,
            largest=self.largest,
        )


def accumulate(batches: Iterable[FeatureSet], options: Options = DEFAULTS) -> Statistics:
    """Statistics of all batches, which must share D; each batch can be dropped once it is counted.

    Raises InvalidFeatureSet where there is no batch.
    """
    parts = (Statistics.of(batch, options) for batch in batches)
    total = next(parts, None)
    if total is None:
        raise InvalidFeatureSet("there are no batches to gather statistics from")
    return sum(parts, start=total)


def score_statistics(
    statistics: Statistics, metrics: Sequence[str], *, options: Options = DEFAULTS
) -> dict[str, Score]:
    """Like `score`, from statistics of objects alone; a metric that needs the features themselves or regions is
    undefined."""
    prepared, targets = StatisticsPrepared(statistics, options), SummedTargets(statistics)
    return {
        metric.name: evaluate(metric, prepared, targets)
        if metric.rows == "objects"
        else Score(None, OF_OBJECTS, 0.0)
        for metric in lookup(metrics)
    }


class SummedTargets(Targets):
    """Targets of which only sums are known, and sums of their products with the features."""

    _statistics: Statistics

    def __init__(self, statistics: Statistics) -> None:
        object.__setattr__(self, "classes", statistics.classes)
        object.__setattr__(self, "counts", statistics.counts.astype(np.int64))
        object.__setattr__(self, "_statistics", statistics)

    @property
    def labels(self) -> Ints:
        raise Undefined(NEEDS_FEATURES)

    boxes = probabilities = labels

    def require_labels(self) -> Ints:
        return self.labels

    @property
    def _boxes(self) -> BoxStatistics:
        if self._statistics.boxes is None:
            raise Undefined("no boxes were given with the statistics")
        return self._statistics.boxes

    def check_boxes(self, what: str = "boxes", of: str = "objects") -> None:
        boxes = self._boxes
        if boxes.bad:
            raise Undefined(f"{boxes.bad} {what} hold NaN or infinity: remove those {of}")

    @cached_property
    def box_moments(self) -> tuple[Floats, Floats]:
        s = self._statistics
        shares = s.counts / s.counts.sum()
        means = shares @ self._boxes.means
        apart = self._boxes.means - means
        return means, self._boxes.scatter.sum(axis=0) + (s.counts[:, None] * apart).T @ apart

    def box_range_note(self) -> tuple[str, ...]:
        if self._boxes.largest > 1.5:
            return ("boxes are not within [0, 1]: the value is shifted by the log of their scale",)
        return ()

    def sums_and_squares(self, kind: Kind) -> tuple[Floats, Floats]:
        """(K,) 1'y and y'y of each column."""
        s = self._statistics
        if kind == "classes":
            return s.counts, s.counts
        per_class = s.counts[:, None] * self._boxes.means
        own = np.einsum("ckk->ck", self._boxes.scatter) + per_class * self._boxes.means
        if kind == "boxes":
            return per_class.sum(axis=0), own.sum(axis=0)
        return per_class.ravel(), own.ravel()

    def cross(self, kind: Kind) -> Floats:
        """(K, D) products of the columns with the centred features."""
        s = self._statistics
        sums = s.counts[:, None] * (s.class_means - s.mean)
        if kind == "classes":
            return sums
        unified = self._boxes.cross + self._boxes.means[:, :, None] * sums[:, None, :]
        if kind == "boxes":
            return np.asarray(unified.sum(axis=0))
        return unified.reshape(-1, len(s.mean))


class StatisticsPrepared(Prepared):
    """What metrics share, taken from statistics. Always primal, whatever N."""

    def __init__(self, statistics: Statistics, options: Options, row: str = "object") -> None:
        super().__init__(np.broadcast_to(0.0, (statistics.objects, len(statistics.mean))), options, row=row)
        self.dual = False
        self._statistics = statistics
        objects = statistics.objects + statistics.bad
        if not len(statistics.mean):
            self.fault = "the features have no columns"
        elif objects < 2:
            self.fault = f"{objects} {row}(s): at least 2 are needed"
        else:
            self.fault = feature_fault(objects, statistics.bad, statistics.largest, row)
        self.mean = statistics.mean
        m = statistics.moments
        self._scatter = Scatter(m.scatter, m.cubic, m.quartic, np.empty((0, len(self.mean))))

    def require_rows(self) -> None:
        self.check()
        raise Undefined(NEEDS_FEATURES)

    def at_hand(self) -> scan.Table:
        self.require_rows()
        return self.features

    def cross(self, targets: Targets, kind: Kind) -> Floats:
        self.check()
        return _summed(targets).cross(kind)

    def project(self, targets: Targets, kind: Kind) -> Columns:
        sums, squares = _summed(targets).sums_and_squares(kind)
        raw, centred = self.spectrum.project(self.cross(targets, kind).T, sums)
        return Columns(raw, centred, squares)


def _summed(targets: Targets) -> SummedTargets:
    if not isinstance(targets, SummedTargets):
        raise TypeError("statistics of features go with sums of targets")
    return targets


def _box_statistics(
    features: FeatureSet, targets: Targets, mean: Floats, offsets: Floats, options: Options
) -> BoxStatistics | None:
    if features.boxes is None:
        return None
    c, d = offsets.shape
    k = features.boxes.shape[1]
    if not targets.has_boxes:
        bad = int((~np.isfinite(features.boxes)).any(axis=1).sum())
        return BoxStatistics(np.zeros((c, k)), np.zeros((c, k, k)), np.zeros((c, k, d)), 0.0, bad)
    boxes = np.asarray(features.boxes, dtype=np.float64)
    unified = targets.columns("unified")
    counts = targets.counts[:, None]
    means = unified.sums.reshape(-1, k) / counts
    apart = TargetColumns(unified.index, boxes - means[targets.labels], unified.count)
    cross = scan.cross_products(features.features, mean, apart, options.block_rows).reshape(c, k, d)
    scatter = np.zeros((c, k, k))
    np.add.at(scatter, targets.labels, _outer(apart.weight))
    return BoxStatistics(means, scatter, cross, float(np.abs(boxes).max(initial=0.0)), 0)


def _outer(rows: Floats) -> Floats:
    """(C, K, K) products of the entries of each row of (C, K)."""
    return rows[:, :, None] * rows[:, None, :]


def _nothing(s: Statistics) -> Statistics:
    d, c = len(s.mean), np.empty(0)
    moments = Moments(0, np.zeros((d, d), order="F"), np.zeros(d), 0.0)
    boxes = None
    if s.boxes is not None:
        k = s.boxes.means.shape[1]
        boxes = BoxStatistics(np.empty((0, k)), np.empty((0, k, k)), np.empty((0, k, d)), 0.0, 0)
    return Statistics(np.zeros(d), moments, s.classes[:0], c, np.empty((0, d)), boxes, 0, 0.0)


def _aligned(s: Statistics, classes: Ints) -> Statistics:
    """The same statistics with a row for every one of `classes`; new rows count nothing."""
    if len(s.classes) == len(classes):
        return s
    where = np.searchsorted(classes, s.classes)

    def spread(values: Floats) -> Floats:
        out = np.zeros((len(classes), *values.shape[1:]))
        out[where] = values
        return out

    boxes = s.boxes
    if boxes is not None:
        boxes = replace(
            boxes, means=spread(boxes.means), scatter=spread(boxes.scatter), cross=spread(boxes.cross)
        )
    return replace(
        s, classes=classes, counts=spread(s.counts), class_means=spread(s.class_means), boxes=boxes
    )


def _merged_boxes(a: Statistics, b: Statistics, share: Floats, apart: Floats) -> BoxStatistics | None:
    """Boxes of both; share (C, 1) = n_b / n, apart (C, D): difference of the class means. None where there are none."""
    mine, theirs = a.boxes, b.boxes
    if mine is None or theirs is None:
        return None
    step = theirs.means - mine.means
    weight = a.counts[:, None] * share
    return BoxStatistics(
        means=mine.means + share * step,
        scatter=mine.scatter + theirs.scatter + weight[:, :, None] * _outer(step),
        cross=mine.cross + theirs.cross + weight[:, :, None] * step[:, :, None] * apart[:, None, :],
        largest=max(mine.largest, theirs.largest),
        bad=mine.bad + theirs.bad,
    )
