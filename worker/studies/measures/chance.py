"""How high the best of many scores climbs by luck alone: with many metrics at many layers, one always looks good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.studies.measures.correlation import measures_of, value_at
from worker.studies.measures.observations import Observation, Place


@dataclass(frozen=True)
class Luck:
    """scores: how many were looked at. median, high: of the best average over datasets when mAP is dealt out at random
    to the candidates of each dataset (95 %). share: how often that reaches the best that was found."""

    scores: int
    best: float
    median: float
    high: float
    share: float


def luck_of(
    observations: Sequence[Observation],
    places: Sequence[Place],
    measure: str = "weighted_tau",
    *,
    draws: int = 500,
    seed: int = 0,
) -> Luck | None:
    """The best average of `measure` over `places`, beside what permuted mAP gives; None where none has a value."""
    rng = np.random.default_rng(seed)
    function = measures_of()[measure]
    groups: dict[str, list[Observation]] = {}
    for each in observations:
        groups.setdefault(each.dataset, []).append(each)
    found = np.full((len(places), len(groups), draws + 1), np.nan)
    for column, group in enumerate(groups.values()):
        truth = np.array([o.map for o in group])
        # the first deal is the real one; all scores see the same deals
        deals = np.vstack([truth, rng.permuted(np.tile(truth, (draws, 1)), axis=1)])
        for row, place in enumerate(places):
            values = [value_at(o, place)[0] for o in group]
            has = np.array([v is not None for v in values])
            if has.sum() < 3:
                continue
            scores = np.array([v for v in values if v is not None], dtype=np.float64)
            found[row, column] = function(np.tile(scores, (draws + 1, 1)), deals[:, has])
    counts = np.isfinite(found).sum(axis=1)
    sums = np.where(np.isfinite(found), found, 0).sum(axis=1)
    averages = np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)
    best = averages.max(axis=0, initial=-np.inf)
    if not np.isfinite(best[0]):
        return None
    luck = best[1:]
    return Luck(
        len(places),
        float(best[0]),
        float(np.median(luck)),
        float(np.quantile(luck, 0.95)),
        float((luck >= best[0] - 1e-12).mean()),
    )
