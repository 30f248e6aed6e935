"""Intervals of scores by leaving out groups of images.

Objects of one image are not independent, so whole images are left out. The replicates come from the same
statistics as the score: the scatter of the group is taken out of the whole (N > D), or its rows and columns out
of the kernel (N <= D); the group's own products are all that is computed anew before the reduction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import blas
from scipy.special import stdtrit

from worker.metrics import scan
from worker.metrics.arrays import Floats, Ints
from worker.metrics.base import Calibration, Interval, Score
from worker.metrics.engine import Scatter
from worker.metrics.evaluate import value_or_nan
from worker.metrics.metric import Metric
from worker.metrics.moments import Moments
from worker.metrics.prepared import Prepared, ask_together, together_of
from worker.metrics.targets import Targets

LEAST_IMAGES = 5
LEVEL = 0.95


def image_groups(image_ids: np.ndarray, groups: int, seed: int) -> Ints:
    """(N,) group 0..G-1 of every object, G = min(groups, images); images spread evenly, seeded.

    Depends on the set of image ids alone, so candidates scored on the same images share the groups.
    """
    images, position = np.unique(image_ids, return_inverse=True)
    count = min(groups, len(images))
    of_image = np.random.default_rng(seed).permutation(np.arange(len(images)) % max(count, 1))
    return np.asarray(of_image[position.reshape(-1)])


@dataclass(frozen=True, eq=False)
class Groups:
    """Which rows are left out together.

    of_row (N,): the group of every row, below `count`; a group may have no row here. notes: go with every interval.
    """

    of_row: Ints
    count: int
    notes: tuple[str, ...] = ()

    def rows(self, index: Ints) -> Groups:
        """The same groups of some of the rows."""
        return replace(self, of_row=self.of_row[index])


def groups_of(image_ids: np.ndarray | None, rows: int, calibration: Calibration) -> Groups:
    """The groups of images of all rows; without image ids every row counts as its own image, which a note says."""
    notes: tuple[str, ...] = ()
    if image_ids is None:
        image_ids = np.arange(rows)
        notes = ("no image ids: objects were taken as independent, so the interval is too narrow",)
    of_row = image_groups(image_ids, calibration.groups, calibration.seed)
    return Groups(of_row, int(of_row.max(initial=-1)) + 1, notes)


def with_intervals(
    scores: Mapping[str, Score],
    metrics: Sequence[Metric],
    prepared: Prepared,
    targets: Targets,
    groups: Groups,
    calibration: Calibration,
) -> dict[str, Score]:
    """The scores with a delete-a-group jackknife interval (Student's t, G - 1 degrees of freedom)."""
    live = [m for m in metrics if scores[m.name].value is not None]
    if not live:
        return dict(scores)
    if groups.count < LEAST_IMAGES:
        return {name: with_interval(s, [np.nan] * groups.count, groups.notes) for name, s in scores.items()}
    replicates: dict[str, list[float]] = {m.name: [] for m in live}
    together = together_of(2 * prepared.dim**2)
    for start in range(0, groups.count, together):
        parts = {}
        for g in range(start, min(start + together, groups.count)):
            calibration.pause()
            left = np.flatnonzero(groups.of_row == g)
            if len(left):
                parts[g] = leave_out(prepared, targets, np.flatnonzero(groups.of_row != g), left)
        ask_together([each for each in parts.values() if not each[0].dual])
        for g in range(start, min(start + together, groups.count)):
            calibration.pause()
            if (found := parts.pop(g, None)) is None:  # images that have rows of another kind only
                for metric in live:
                    replicates[metric.name].append(scores[metric.name].known())
                continue
            part, rest = found
            for metric in live:
                replicates[metric.name].append(value_or_nan(metric, part, rest))
            part.forget(rest)
    return {name: with_interval(score, replicates.get(name), groups.notes) for name, score in scores.items()}


def with_interval(score: Score, replicates: Sequence[float] | None, note: tuple[str, ...] = ()) -> Score:
    """The score with the interval of its replicates, one without each group, NaN where one has no value.

    Too few of them give a note instead; None, or a score without a value, changes nothing.
    """
    if score.value is None or replicates is None:
        return score
    values = np.array(replicates, dtype=np.float64)
    if len(values) < LEAST_IMAGES:
        reason = f"no interval: {len(values)} images or groups; at least {LEAST_IMAGES} are needed"
        return replace(score, notes=(*score.notes, reason))
    if not np.isfinite(values).all():
        lost = int((~np.isfinite(values)).sum())
        reason = f"no interval: {lost} of {len(values)} groups of images cannot be left out"
        return replace(score, notes=(*score.notes, reason))
    return replace(score, interval=jackknife_interval(score.value, values, LEVEL), notes=score.notes + note)


def jackknife_interval(value: float, replicates: Floats, level: float) -> Interval:
    """Interval around `value` from its replicates (G,), one without each group."""
    count = len(replicates)
    std = float(np.sqrt((count - 1) / count * np.square(replicates - replicates.mean()).sum()))
    half = float(stdtrit(count - 1, 0.5 + level / 2)) * std
    return Interval(value - half, value + half, std, level, tuple(replicates.tolist()))


def leave_out(prepared: Prepared, targets: Targets, kept: Ints, left: Ints) -> tuple[Prepared, Targets]:
    """Features and targets of the objects `kept`, from those of all; `left` are the others."""
    rest = targets.rows(kept)
    part = Prepared(scan.Selected(prepared.features, kept), prepared.options, rest, engine=prepared.engine)
    if prepared.fault or len(kept) < 2:
        return part, rest
    part.fault = None  # rows of faultless features
    if prepared.dual:
        _dual_part(part, prepared, kept)
    elif not part.dual:
        _primal_part(part, prepared, targets, kept, left)
    return part, rest


def _primal_part(part: Prepared, whole: Prepared, targets: Targets, kept: Ints, left: Ints) -> None:
    """Take the group out of the scatter and of the cross-products; all around the mean of the whole first."""
    columns = targets.main_columns
    gone = whole.engine.scatter(whole.x[left], whole.mean, columns.rows(left), whole.options)
    total = whole.totals(targets)
    # The centred rows of the whole sum to zero: those kept sum to minus those left.
    shift = -whole.sum_of_centred(left) / len(kept)
    of_kept = Moments(
        len(kept), total.matrix - gone.matrix, total.cubic - gone.cubic, total.quartic - gone.quartic
    ).at_mean(shift)
    staying = columns.rows(kept).sums
    cross = total.cross - gone.cross - np.outer(staying, shift)
    alive = np.ones(columns.count, dtype=bool)
    alive[: len(targets.counts)] = np.bincount(targets.labels[kept], minlength=len(targets.counts)) > 0
    part.mean = whole.mean + shift
    part.adopt(Scatter(of_kept.scatter, of_kept.cubic, of_kept.quartic, cross[alive]))


def _dual_part(part: Prepared, whole: Prepared, kept: Ints) -> None:
    """A principal block of the kernel, centred again."""
    kernel = np.asfortranarray(whole.kernel[np.ix_(kept, kept)])
    n = len(kept)
    means = blas.dsymv(1.0 / n, kernel, np.ones(n), lower=1)
    kernel += means.mean() - means - means[:, None]
    part.kernel = kernel
