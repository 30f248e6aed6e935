"""The null of a score: what it reaches when the targets are handed to the wrong objects.

The features do not change under a permutation, so neither does their factorisation: a permutation costs its
cross-products and a few solves. Only metrics that factor each class by itself (TransRate, SFDA, NCTI) pay more.

Regions are permuted one by one, although those of one object or image resemble each other: features that smooth over
a neighbourhood then know more than nothing of where the regions lie, and z says that they do. Whether one candidate is
better than another is for the intervals, which leave out whole images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from worker.metrics.base import Metric, Null, Rows, Score
from worker.metrics.evaluate import value_or_nan
from worker.metrics.prepared import Prepared
from worker.metrics.regions import KINDS, WITH_BACKGROUND
from worker.metrics.targets import Kind, Targets

TOGETHER = 4  # permutations whose cross-products are formed in one pass; bounds the memory


def with_nulls(
    scores: Mapping[str, Score],
    metrics: Sequence[Metric],
    prepared: Prepared,
    targets: Targets,
    permutations: int,
    seed: int,
    check: Callable[[], None] | None = None,
    rows: Rows = "objects",
) -> dict[str, Score]:
    """The scores with null and z added where the metric has a value for every permutation.

    The permutations depend on N, `permutations`, `seed` and the kind of rows alone, so candidates scored on the same
    rows share them. z is None where the null does not vary.
    """
    live = [m for m in metrics if scores[m.name].value is not None]
    rng = generator(seed, rows)
    drawn: dict[str, list[float]] = {m.name: [] for m in live}
    for start in range(0, permutations, TOGETHER):
        batch = [targets.permuted(rng) for _ in range(min(TOGETHER, permutations - start))]
        prepared.preload(batch, _linear_kinds(live, targets))
        for permuted in batch:
            if check:
                check()
            for metric in live:
                drawn[metric.name].append(value_or_nan(metric, prepared, permuted))
            prepared.forget(permuted)
    return {name: with_null(score, drawn.get(name), seed) for name, score in scores.items()}


def generator(seed: int, rows: Rows) -> np.random.Generator:
    """Of the permutations of one kind of rows: those of different kinds are independent."""
    return np.random.default_rng(seed if rows == "objects" else [seed, KINDS.index(rows)])


def with_null(score: Score, drawn: Sequence[float] | None, seed: int) -> Score:
    """The score with the null and z of its values under permutation, NaN where one has none; None: none were drawn."""
    if drawn is None:
        return score
    values = np.array(drawn)
    if not np.isfinite(values).all():
        return replace(score, notes=(*score.notes, "no null: a permutation has no value"))
    mean, std = float(values.mean()), float(values.std(ddof=1))
    z = (score.value - mean) / std if std > abs(mean) * 1e-12 else None
    return replace(score, null=Null(mean, std, len(values), seed), z=z)


def _linear_kinds(metrics: Sequence[Metric], targets: Targets) -> list[Kind]:
    """The target columns that these metrics will ask for."""
    needs = frozenset().union(*(m.needs for m in metrics if "features" in m.needs))
    kinds: list[Kind] = ["classes"] if "labels" in needs else []
    if "regions" in needs:
        kinds = ["classes"] if any(m.rows in WITH_BACKGROUND for m in metrics) else []
    if needs & {"boxes", "regions"} and targets.has_boxes:
        kinds += ["boxes"]
        kinds += ["unified"] if any(m.name == "u_logme" for m in metrics) else []
    return kinds
