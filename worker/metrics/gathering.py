"""What is kept of features that are dropped as soon as they are read: statistics by group of images, and sums under permuted targets.

Labels, boxes, groups and permutations of all objects follow from the annotations alone, so they are known before the first
feature is. The score comes from all groups together, an interval from all but one, a null from the sums of each permutation:
the same numbers as from the features, in memory that depends on D, C, groups and permutations but not on N.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from worker.metrics import scan
from worker.metrics.arrays import Floats, Ints
from worker.metrics.base import (
    Calibration,
    FeatureSet,
    InvalidFeatureSet,
    RegionSet,
    Rows,
    RowSet,
    Score,
    Undefined,
)
from worker.metrics.columns import TargetColumns, beside
from worker.metrics.composed import with_parts, with_sums
from worker.metrics.evaluate import evaluate, value_or_nan
from worker.metrics.jackknife import LEAST_IMAGES, Groups, groups_of, with_interval
from worker.metrics.metric import Metric
from worker.metrics.null import generator, with_null
from worker.metrics.options import DEFAULTS, Options
from worker.metrics.prepared import ask_together, together_of
from worker.metrics.regions import KINDS, NAMES, NOT_SAMPLED, index_of, rows_of
from worker.metrics.registry import lookup
from worker.metrics.statistics import Statistics, StatisticsPrepared, SummedTargets
from worker.metrics.targets import Kind, Targets
from worker.metrics.threads import threads_for

HELD_ROWS = 8192
# Products of permuted targets for one layer: beyond this the null is left out.
NULL_BYTES = 512 * 2**20
NO_NULL = "no null: the sums of permuted targets for so many classes and dimensions are not kept"


@dataclass(frozen=True, eq=False)
class Design:
    """What is known of the N rows before any feature is read; the same for every candidate and layer.

    targets: of all rows. groups: which rows are left out together; one and the same for all without intervals.
    orders: (P, N) int32, the row whose target each row gets; P = 0 without nulls. kinds: target columns needed.
    rows: what the rows are. regions: of a design of objects, the designs of the other kinds of rows that the metrics
    need; empty without. index: (N,) int, the regions that these rows are, ascending; None for objects.
    """

    targets: Targets
    groups: Groups
    orders: NDArray[np.int32]
    kinds: tuple[Kind, ...]
    calibration: Calibration
    rows: Rows = "objects"
    regions: Mapping[Rows, Design] = field(default_factory=dict)
    index: Ints | None = None

    @classmethod
    def of(
        cls,
        labels: Ints,
        boxes: Floats | None,
        image_ids: np.ndarray,
        metrics: Sequence[str],
        *,
        regions: RegionSet | None = None,
        permutations: int = 0,
        groups: int = 0,
        seed: int = 0,
    ) -> Design:
        """Permutations and groups as `score` draws them for the same seed. labels, image_ids (N,); boxes (N, 4).

        regions: the targets of sampled regions, with image ids and features (R, 0), where there are some; they take part
        if a metric's rows are regions.
        """
        targets = Targets.of(FeatureSet(np.empty((len(labels), 0)), labels, boxes))
        calibration = Calibration(permutations, groups, seed)
        parts = with_parts(lookup(metrics))
        unified = any("unified" in part.reads for part in parts)
        own = _groups(image_ids, len(labels), calibration)
        design = cls._of_rows(targets, own, "objects", calibration, unified=unified)
        if regions is None:
            return design
        found: dict[Rows, Design] = {}
        own = _groups(regions.image_ids, len(regions.labels), calibration)
        for rows in sorted({part.rows for part in parts} - {"objects"}):
            try:
                index = index_of(regions, rows)
            except Undefined as reason:
                raise InvalidFeatureSet(str(reason)) from reason
            targets = Targets.of(rows_of(regions, rows))
            found[rows] = replace(cls._of_rows(targets, own.rows(index), rows, calibration), index=index)
        return replace(design, regions=found)

    @classmethod
    def _of_rows(
        cls,
        targets: Targets,
        groups: Groups,
        rows: Rows,
        calibration: Calibration,
        *,
        unified: bool = False,
    ) -> Design:
        n = len(targets.labels)
        rng = generator(calibration.seed, rows)
        orders = np.empty((calibration.permutations, n), dtype=np.int32)
        for order in orders:
            order[:] = rng.permutation(n)
        kinds: tuple[Kind, ...] = ("classes", "boxes") if targets.has_boxes else ("classes",)
        if targets.has_boxes and unified:
            kinds += ("unified",)
        return cls(targets, groups, orders, kinds, calibration, rows)

    @property
    def columns(self) -> int:
        """How many target columns each permutation has."""
        return sum(self.width(kind) for kind in self.kinds)

    def width(self, kind: Kind) -> int:
        c = len(self.targets.classes)
        k = 0 if self.targets.boxes is None else self.targets.boxes.shape[1]
        return {"classes": c, "boxes": k, "unified": k * c}[kind]

    def permuted_columns(self, rows: Ints) -> TargetColumns:
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
    """Of one layer, for the rows seen so far: `a + b` is of both together.

    groups: group to its Statistics; those without rows are absent. point: (D,) around which `sums` (P, K, D) were formed,
    products of permuted target columns with the features; weights (P, K): sums of the columns over these rows.
    Where nulls are not kept, P = 0. regions: what was gathered of the other kinds of rows, those without any absent.
    """

    groups: Mapping[int, Statistics]
    point: Floats
    sums: Floats
    weights: Floats
    regions: Mapping[Rows, Gathered] = field(default_factory=dict)

    def __add__(self, other: Gathered) -> Gathered:
        if len(self.point) != len(other.point):
            raise InvalidFeatureSet(
                f"cannot add what was gathered of {len(self.point)} and {len(other.point)} dimensions"
            )
        merged = dict(self.groups)
        for group, statistics in other.groups.items():
            merged[group] = merged[group] + statistics if group in merged else statistics
        regions = dict(self.regions)
        for rows, found in other.regions.items():
            regions[rows] = regions[rows] + found if rows in regions else found
        sums = self.sums + other.sums_around(self.point)
        return Gathered(merged, self.point, sums, self.weights + other.weights, regions)

    def sums_around(self, point: Floats) -> Floats:
        """(P, K, D) the sums as they are with the features around another point."""
        return self.sums + self.weights[:, :, None] * (self.point - point)

    @cached_property
    def total(self) -> Statistics:
        return reduce(add, (self.groups[group] for group in sorted(self.groups)))


@dataclass(eq=False)
class Gathering:
    """Takes the vectors of one layer as they are read; holds about HELD_ROWS of them."""

    design: Design
    options: Options = DEFAULTS
    _rows: list[Ints] = field(default_factory=list)
    _held: list[Floats] = field(default_factory=list)
    _count: int = 0
    _gathered: Gathered | None = None
    _regions: dict[Rows, Gathering] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._regions = {rows: Gathering(own, self.options) for rows, own in self.design.regions.items()}

    def add(self, rows: Ints, features: Floats) -> None:
        """features (n, D) of the objects `rows` (n,). No object may come twice."""
        self._rows.append(rows)
        self._held.append(features)
        self._count += len(rows)
        if self._count >= HELD_ROWS:
            self._fold()

    def add_regions(self, rows: Ints, features: Floats) -> None:
        """features (n, D) of the regions `rows` (n,), positions in the design's. No region may come twice."""
        for gathering in self._regions.values():
            index = gathering.design.index
            if index is None:
                raise TypeError("a design of regions has an index")
            place = np.searchsorted(index, rows)
            own = place < len(index)
            own[own] = index[place[own]] == rows[own]
            gathering.add(place[own], features[own])

    def result(self) -> Gathered:
        """Of everything added. Raises InvalidFeatureSet where there were no objects."""
        found = self._result()
        if found is None:
            raise InvalidFeatureSet("there are no batches to gather statistics from")
        regions = {rows: gathering._result() for rows, gathering in self._regions.items()}
        return replace(found, regions={rows: own for rows, own in regions.items() if own is not None})

    def _result(self) -> Gathered | None:
        self._fold()
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

    def _part(self, rows: Ints, features: Floats) -> Gathered:
        design, d = self.design, features.shape[1]
        permutations = design.calibration.permutations
        labels = design.targets.classes[design.targets.labels[rows]]
        boxes = None if design.targets.boxes is None else design.targets.boxes[rows]
        groups = {}
        for group in np.unique(design.groups.of_row[rows]).tolist():
            of_group = design.groups.of_row[rows] == group
            own = RowSet(features[of_group], labels[of_group], None if boxes is None else boxes[of_group])
            groups[group] = Statistics.of(own, self.options)
        if not permutations or permutations * design.columns * d * 8 > NULL_BYTES:
            return Gathered(
                groups, np.zeros(d), np.empty((0, design.columns, d)), np.empty((0, design.columns))
            )
        with np.errstate(all="ignore"):  # what is not finite is noticed by the statistics
            point = scan.column_means(features, self.options.block_rows)
            columns = design.permuted_columns(rows)
            sums = scan.cross_products(features, point, columns, self.options.block_rows)
        shape = (permutations, design.columns)
        return Gathered(groups, point, sums.reshape(*shape, d), columns.sums.reshape(shape))


def score_gathered(
    gathered: Gathered,
    design: Design,
    metrics: Sequence[str],
    *,
    calibrated: bool = True,
    options: Options = DEFAULTS,
    check: Callable[[], None] | None = None,
) -> dict[str, Score]:
    """Like `score` with the design's permutations, groups and seed; a metric that needs the features is undefined.

    calibrated: with nulls and intervals, where the design has them.
    """
    calibration = replace(design.calibration, check=check) if calibrated else Calibration()
    with threads_for(len(gathered.point)):
        return _scored(gathered, design, metrics, options, calibration)


def _scored(
    gathered: Gathered,
    design: Design,
    metrics: Sequence[str],
    options: Options,
    calibration: Calibration,
) -> dict[str, Score]:
    wanted = lookup(metrics)
    parts = with_parts(wanted)
    scores: dict[str, Score] = {}
    predicted: dict[Rows, Targets] = {}
    for rows in KINDS:
        own = [metric for metric in parts if metric.rows == rows]
        if not own:
            continue
        found = gathered if rows == "objects" else gathered.regions.get(rows)
        known = design if rows == "objects" else design.regions.get(rows)
        if found is None or known is None:
            reason = NOT_SAMPLED if known is None else f"there are no {NAMES[rows]}s"
            scores |= {metric.name: Score(None, reason, 0.0) for metric in own}
            continue
        predicted[rows] = SummedTargets(found.total)
        scores |= _score_rows(found, known, own, options, calibration)
    return with_sums(wanted, scores, predicted)


def _score_rows(
    gathered: Gathered,
    design: Design,
    metrics: Sequence[Metric],
    options: Options,
    calibration: Calibration,
) -> dict[str, Score]:
    """Scores of metrics of one kind of rows."""
    total = gathered.total
    prepared, targets = StatisticsPrepared(total, options, NAMES[design.rows]), SummedTargets(total)
    scores = {metric.name: evaluate(metric, prepared, targets) for metric in metrics}
    live = [metric for metric in metrics if scores[metric.name].value is not None]
    if calibration.permutations:
        drawn = _drawn(live, prepared, gathered, design, calibration)
        if drawn is None:
            scores = {name: _without_null(score) for name, score in scores.items()}
        else:
            scores = {name: with_null(s, drawn.get(name), calibration.seed) for name, s in scores.items()}
    if calibration.groups:
        replicates = _replicates(scores, live, gathered, design, options, calibration)
        scores = {name: with_interval(score, replicates.get(name)) for name, score in scores.items()}
    return scores


def _without_null(score: Score) -> Score:
    return score if score.value is None else replace(score, notes=(*score.notes, NO_NULL))


def _drawn(
    live: Sequence[Metric],
    prepared: StatisticsPrepared,
    gathered: Gathered,
    design: Design,
    calibration: Calibration,
) -> dict[str, list[float]] | None:
    """The values of each metric under every permutation; None where their sums were not kept."""
    if not len(gathered.sums):
        return None
    drawn: dict[str, list[float]] = {metric.name: [] for metric in live}
    total = gathered.total
    sums = gathered.sums_around(prepared.mean) if live else gathered.sums[:0]
    together = together_of(sums[:1].size)
    for start in range(0, len(sums), together):
        batch = [_Permuted(total, design, each) for each in sums[start : start + together]]
        ask_together([(prepared, permuted) for permuted in batch])
        for permuted in batch:
            calibration.pause()
            for metric in live:
                drawn[metric.name].append(value_or_nan(metric, prepared, permuted))
            prepared.forget(permuted)
    return drawn


def _replicates(
    scores: Mapping[str, Score],
    live: Sequence[Metric],
    gathered: Gathered,
    design: Design,
    options: Options,
    calibration: Calibration,
) -> dict[str, list[float]]:
    """The values of each metric without each group."""
    count = design.groups.count
    replicates: dict[str, list[float]] = {metric.name: [] for metric in live}
    if live and count < LEAST_IMAGES:  # a note instead
        return {name: [np.nan] * count for name in replicates}
    total = gathered.total
    together = together_of(2 * len(gathered.point) ** 2)
    for start in range(0, count if live else 0, together):
        parts = {}
        for group in range(start, min(start + together, count)):
            calibration.pause()
            if group in gathered.groups:
                rest = total - gathered.groups[group]
                parts[group] = StatisticsPrepared(rest, options), SummedTargets(rest)
        ask_together(list(parts.values()))
        for group in range(start, min(start + together, count)):
            calibration.pause()
            if (found := parts.pop(group, None)) is None:  # images that have rows of another kind only
                for metric in live:
                    replicates[metric.name].append(scores[metric.name].known())
                continue
            part, targets = found
            for metric in live:
                replicates[metric.name].append(value_or_nan(metric, part, targets))
            part.forget(targets)
    return replicates


def _groups(image_ids: np.ndarray | None, rows: int, calibration: Calibration) -> Groups:
    """The groups of images of all rows; none where no interval is wanted."""
    if not calibration.groups:
        return Groups(np.zeros(rows, dtype=np.int64), 0)
    return groups_of(image_ids, rows, calibration)


class _Permuted(SummedTargets):
    """The targets handed to other objects: their own sums stay, those of their products with the features do not."""

    _products: dict[Kind, Floats]

    def __init__(self, total: Statistics, design: Design, sums: Floats) -> None:
        """sums (K, D): products of the permuted columns with the centred features."""
        super().__init__(total)
        edges = np.cumsum([design.width(kind) for kind in design.kinds])[:-1]
        object.__setattr__(self, "_products", dict(zip(design.kinds, np.split(sums, edges), strict=True)))

    def cross(self, kind: Kind) -> Floats:
        return self._products[kind]
