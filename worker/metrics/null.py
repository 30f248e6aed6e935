"""The null of a score: what it reaches when the targets are handed to the wrong objects.

The features do not change under a permutation, so neither does their factorisation: a permutation costs its
cross-products and a few solves. Only metrics that factor each class by itself (TransRate, SFDA, NCTI) pay more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from worker.metrics.base import Metric, Null, Score, Undefined
from worker.metrics.evaluate import attempt
from worker.metrics.prepared import Prepared
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
) -> dict[str, Score]:
    """The scores with null and z added where the metric has a value for every permutation.

    The permutations depend on N, `permutations` and `seed` alone, so candidates scored on the same objects
    share them. z is None where the null does not vary.
    """
    live = [m for m in metrics if scores[m.name].value is not None]
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {m.name: [] for m in live}
    for start in range(0, permutations, TOGETHER):
        batch = [targets.permuted(rng) for _ in range(min(TOGETHER, permutations - start))]
        prepared.preload(batch, _linear_kinds(live, targets))
        for permuted in batch:
            if check:
                check()
            for metric in live:
                try:
                    drawn[metric.name].append(attempt(metric, prepared, permuted).value)
                except Undefined:
                    drawn[metric.name].append(np.nan)
            prepared.forget(permuted)
    out = dict(scores)
    for metric in live:
        values = np.array(drawn[metric.name])
        score = scores[metric.name]
        if not np.isfinite(values).all():
            out[metric.name] = replace(score, notes=(*score.notes, "no null: a permutation has no value"))
            continue
        mean, std = float(values.mean()), float(values.std(ddof=1))
        z = (score.value - mean) / std if std > abs(mean) * 1e-12 else None
        out[metric.name] = replace(score, null=Null(mean, std, permutations, seed), z=z)
    return out


def _linear_kinds(metrics: Sequence[Metric], targets: Targets) -> list[Kind]:
    """The target columns that these metrics will ask for."""
    needs = frozenset().union(*(m.needs for m in metrics if "features" in m.needs))
    kinds: list[Kind] = ["classes"] if "labels" in needs else []
    if "boxes" in needs and targets.has_boxes:
        kinds += ["boxes"]
        kinds += ["unified"] if any(m.name == "u_logme" for m in metrics) else []
    return kinds
