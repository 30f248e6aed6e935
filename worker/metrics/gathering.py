"""What is kept of features that are dropped as soon as they are read: statistics by group of images, and sums under permuted targets.

Labels, boxes, groups and permutations of all objects follow from the annotations alone, so they are known before the first
feature is. The score comes from all groups together, an interval from all but one, a null from the sums of each permutation:
the same numbers as from the features, in memory that depends on D, C, groups and permutations but not on N.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add

import numpy as np

from worker.metrics import scan
from worker.metrics.base import FeatureSet, InvalidFeatureSet, Metric, Score
from worker.metrics.columns import TargetColumns, beside
from worker.metrics.evaluate import evaluate, value_or_nan
from worker.metrics.jackknife import LEAST_IMAGES, image_groups, with_interval
from worker.metrics.null import with_null
from worker.metrics.options import DEFAULTS, Options
from worker.metrics.registry import lookup
from worker.metrics.statistics import Statistics, StatisticsPrepared, SummedTargets
from worker.metrics.targets import Kind, Targets

HELD_ROWS = 8192
# Products of permuted targets for one layer: beyond this the null is left out.
NULL_BYTES = 512 * 2**20
NO_NULL = "no null: the sums of permuted targets for so many classes and dimensions are not kept"
_UNIFIED = "u_logme"


@dataclass(frozen=True, eq=False)
class Design:
    """What is known of the N objects before any feature is read; the same for every candidate and layer.

    targets: of all objects. group: (N,) int, images of one group are left out together; 0 everywhere without intervals.
    orders: (P, N) int32, the object whose target each object gets; P = 0 without nulls. kinds: target columns needed.
    """

    targets: Targets
    group: np.ndarray
    orders: np.ndarray
    kinds: tuple[Kind, ...]
    groups: int
    permutations: int
    seed: int

    @classmethod
    def of(
        cls,
        labels: np.ndarray,
        boxes: np.ndarray | None,
        image_ids: np.ndarray,
        metrics: Sequence[str],
        *,
        permutations: int = 0,
        groups: int = 0,
        seed: int = 0,
    ) -> Design:
        """Permutations and groups as `score` draws them for the same seed. labels, image_ids (N,); boxes (N, 4)."""
        n = len(labels)
        targets = Targets.of(FeatureSet(np.empty((n, 0)), labels, boxes))
        rng = np.random.default_rng(seed)
        orders = np.empty((permutations, n), dtype=np.int32)
        for order in orders:
            order[:] = rng.permutation(n)
        group = image_groups(image_ids, groups, seed) if groups else np.zeros(n, dtype=np.int64)
        kinds: tuple[Kind, ...] = ("classes", "boxes") if targets.has_boxes else ("classes",)
        if targets.has_boxes and _UNIFIED in metrics:
            kinds += ("unified",)
        return cls(targets, group, orders, kinds, groups, permutations, seed)

    @property
    def columns(self) -> int:
        """How many target columns each permutation has."""
        return sum(self.width(kind) for kind in self.kinds)

    def width(self, kind: Kind) -> int:
        c = len(self.targets.classes)
        return {"classes": c, "boxes": 4, "unified": 4 * c}[kind]

    def permuted_columns(self, rows: np.ndarray) -> TargetColumns:
        """The columns of all permutations, side by side, for some objects."""
        return beside(
            [
                self.targets.of_others(order[rows]).columns(kind)
                for order in self.orders
                for kind in self.kinds
            ]
        )


@dataclass(frozen=True, eq=False)
class Gathered:
    """Of one layer, for the objects seen so far: `a + b` is of both together.

    groups: group to its Statistics; those without objects are absent. point: (D,) around which `sums` (P, K, D) were formed,
    products of permuted target columns with the features; weights (P, K): sums of the columns over these objects.
    Where nulls are not kept, P = 0.
    """

    groups: Mapping[int, Statistics]
    point: np.ndarray
    sums: np.ndarray
    weights: np.ndarray

    def __add__(self, other: Gathered) -> Gathered:
        if len(self.point) != len(other.point):
            raise InvalidFeatureSet(
                f"cannot add what was gathered of {len(self.point)} and {len(other.point)} dimensions"
            )
        merged = dict(self.groups)
        for group, statistics in other.groups.items():
            merged[group] = merged[group] + statistics if group in merged else statistics
        return Gathered(
            merged, self.point, self.sums + other.sums_around(self.point), self.weights + other.weights
        )

    def sums_around(self, point: np.ndarray) -> np.ndarray:
        """(P, K, D) the sums as they are with the features around another point."""
        return self.sums + self.weights[:, :, None] * (self.point - point)

    @property
    def total(self) -> Statistics:
        return reduce(add, (self.groups[group] for group in sorted(self.groups)))


@dataclass(eq=False)
class Gathering:
    """Takes the vectors of one layer as they are read; holds about HELD_ROWS of them."""

    design: Design
    options: Options = DEFAULTS
    _rows: list[np.ndarray] = field(default_factory=list)
    _held: list[np.ndarray] = field(default_factory=list)
    _count: int = 0
    _gathered: Gathered | None = None

    def add(self, rows: np.ndarray, features: np.ndarray) -> None:
        """features (n, D) of the objects `rows` (n,). No object may come twice."""
        self._rows.append(rows)
        self._held.append(features)
        self._count += len(rows)
        if self._count >= HELD_ROWS:
            self._fold()

    def result(self) -> Gathered:
        """Of everything added. Raises InvalidFeatureSet where there was nothing."""
        self._fold()
        if self._gathered is None:
            raise InvalidFeatureSet("there are no batches to gather statistics from")
        return self._gathered

    def _fold(self) -> None:
        if not self._held:
            return
        rows, features = np.concatenate(self._rows), np.concatenate(self._held)
        self._rows, self._held, self._count = [], [], 0
        if not len(rows):
            return
        part = self._part(rows, features)
        self._gathered = part if self._gathered is None else self._gathered + part

    def _part(self, rows: np.ndarray, features: np.ndarray) -> Gathered:
        design, d = self.design, features.shape[1]
        labels = design.targets.classes[design.targets.labels[rows]]
        boxes = None if design.targets.boxes is None else design.targets.boxes[rows]
        groups = {}
        for group in np.unique(design.group[rows]).tolist():
            of_group = design.group[rows] == group
            own = FeatureSet(features[of_group], labels[of_group], None if boxes is None else boxes[of_group])
            groups[group] = Statistics.of(own, self.options)
        if not design.permutations or design.permutations * design.columns * d * 8 > NULL_BYTES:
            return Gathered(
                groups, np.zeros(d), np.empty((0, design.columns, d)), np.empty((0, design.columns))
            )
        with np.errstate(all="ignore"):  # what is not finite is noticed by the statistics
            point = scan.column_means(features, self.options.block_rows)
            columns = design.permuted_columns(rows)
            sums = scan.cross_products(features, point, columns, self.options.block_rows)
        shape = (design.permutations, design.columns)
        return Gathered(groups, point, sums.reshape(*shape, d), columns.sums.reshape(shape))


def score_gathered(
    gathered: Gathered,
    design: Design,
    metrics: Sequence[str],
    *,
    options: Options = DEFAULTS,
    check: Callable[[], None] | None = None,
) -> dict[str, Score]:
    """Like `score` with the design's permutations, groups and seed; a metric that needs the features is undefined."""
    wanted, total = lookup(metrics), gathered.total
    prepared, targets = StatisticsPrepared(total, options), SummedTargets(total)
    scores = {metric.name: evaluate(metric, prepared, targets) for metric in wanted}
    live = [metric for metric in wanted if scores[metric.name].value is not None]
    if design.permutations:
        scores = _with_nulls(scores, live, prepared, total, gathered, design, check)
    if design.groups:
        scores = _with_intervals(scores, live, total, gathered, design, options, check)
    return scores


def _with_nulls(
    scores: dict[str, Score],
    live: Sequence[Metric],
    prepared: StatisticsPrepared,
    total: Statistics,
    gathered: Gathered,
    design: Design,
    check: Callable[[], None] | None,
) -> dict[str, Score]:
    if not len(gathered.sums):
        return {
            name: score if score.value is None else replace(score, notes=(*score.notes, NO_NULL))
            for name, score in scores.items()
        }
    drawn: dict[str, list[float]] = {metric.name: [] for metric in live}
    for sums in gathered.sums_around(prepared.mean) if live else ():
        if check:
            check()
        permuted = _Permuted(total, design, sums)
        for metric in live:
            drawn[metric.name].append(value_or_nan(metric, prepared, permuted))
        prepared.forget(permuted)
    return {name: with_null(score, drawn.get(name), design.seed) for name, score in scores.items()}


def _with_intervals(
    scores: dict[str, Score],
    live: Sequence[Metric],
    total: Statistics,
    gathered: Gathered,
    design: Design,
    options: Options,
    check: Callable[[], None] | None,
) -> dict[str, Score]:
    count = int(design.group.max(initial=-1)) + 1
    replicates: dict[str, list[float]] = {metric.name: [] for metric in live}
    if live and count < LEAST_IMAGES:  # a note instead
        replicates = {name: [np.nan] * count for name in replicates}
        live = ()
    for group in range(count) if live else ():
        if check:
            check()
        rest = total - gathered.groups[group]
        part, targets = StatisticsPrepared(rest, options), SummedTargets(rest)
        for metric in live:
            replicates[metric.name].append(value_or_nan(metric, part, targets))
    return {name: with_interval(score, replicates.get(name)) for name, score in scores.items()}


class _Permuted(SummedTargets):
    """The targets handed to other objects: their own sums stay, those of their products with the features do not."""

    def __init__(self, total: Statistics, design: Design, sums: np.ndarray) -> None:
        """sums (K, D): products of the permuted columns with the centred features."""
        super().__init__(total)
        edges = np.cumsum([design.width(kind) for kind in design.kinds])[:-1]
        object.__setattr__(self, "_products", dict(zip(design.kinds, np.split(sums, edges), strict=True)))

    def cross(self, kind: Kind) -> np.ndarray:
        return self._products[kind]
