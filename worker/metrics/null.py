"""The null of a score: what it reaches when the targets are handed to the wrong objects.

The features do not change under a permutation, so neither does their factorisation: a permutation costs its
cross-products and a few solves. Only metrics that factor each class by itself (TransRate, SFDA, NCTI) pay more.

Regions are permuted one by one, although those of one object or image resemble each other: features that smooth over
a neighbourhood then know more than nothing of where the regions lie, and z says that they do. Whether one candidate is
better than another is for the intervals, which leave out whole images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from worker.metrics.base import Calibration, Null, Rows, Score
from worker.metrics.evaluate import value_or_nan
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared, ask_together, together_of
from worker.metrics.regions import KINDS, WITH_BACKGROUND
from worker.metrics.targets import Kind, Targets

FEWEST = 4  # permutations whose cross-products are formed in one pass


def with_nulls(
    scores: Mapping[str, Score],
    metrics: Sequence[Metric],
    prepared: Prepared,
    targets: Targets,
    calibration: Calibration,
    rows: Rows = "objects",
) -> dict[str, Score]:
    """The scores with null and z added where the metric has a value for every permutation.

    The permutations depend on N, their number, the seed and the kind of rows alone, so candidates scored on the same
    rows share them. z is None where the null does not vary.
    """
    live = [m for m in metrics if scores[m.name].value is not None]
    rng = generator(calibration.seed, rows)
    permutations = calibration.permutations
    drawn: dict[str, list[float]] = {m.name: [] for m in live}
    kinds = _linear_kinds(live, targets)
    columns = sum(targets.columns(kind).count for kind in kinds)
    together = max(FEWEST, together_of(columns * min(prepared.dim, prepared.objects)))
    for start in range(0, permutations, together):
        batch = [targets.permuted(rng) for _ in range(min(together, permutations - start))]
        ask_together([(prepared, permuted) for permuted in batch])
        prepared.preload(batch, kinds)
        for permuted in batch:
            calibration.pause()
            for metric in live:
                drawn[metric.name].append(value_or_nan(metric, prepared, permuted))
            prepared.forget(permuted)
    return {name: with_null(score, drawn.get(name), calibration.seed) for name, score in scores.items()}


def generator(seed: int, rows: Rows) -> np.random.Generator:
    """Of the permutations of one kind of rows: those of different kinds are independent."""
    return np.random.default_rng(seed if rows == "objects" else [seed, KINDS.index(rows)])


def with_null(score: Score, drawn: Sequence[float] | None, seed: int) -> Score:
    """The score with the null and z of its values under permutation, NaN where one has none; None: none were drawn."""
    if drawn is None or score.value is None:
        return score
    values = np.array(drawn)
    if not np.isfinite(values).all():
        return replace(score, notes=(*score.notes, "no null: a permutation has no value"))
    mean, std = float(values.mean()), float(values.std(ddof=1))
    z = (score.known() - mean) / std if std > abs(mean) * 1e-12 else None
    return replace(score, null=Null(mean, std, len(values), seed), z=z)


def _linear_kinds(metrics: Sequence[Metric], targets: Targets) -> list[Kind]:
    """The target columns that these metrics will ask for."""
    needs = frozenset().union(*(m.needs for m in metrics if "features" in m.needs))
    kinds: list[Kind] = ["classes"] if "labels" in needs else []
    if "regions" in needs:
        kinds = ["classes"] if any(m.rows in WITH_BACKGROUND for m in metrics) else []
    if needs & {"boxes", "regions"} and targets.has_boxes:
        kinds += ["boxes"]
        kinds += ["unified"] if any("unified" in m.reads for m in metrics) else []
    return kinds
