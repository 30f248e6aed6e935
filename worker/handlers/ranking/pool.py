"""Metrics that are relative to the pool: their terms are scored with each candidate, the rest when all are there."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from app.db import tables
from worker.handlers.ranking.calibration import score_of, score_row
from worker.metrics import METRICS, OF_SOURCE, Score
from worker.metrics.pool import pool_scores, with_terms


def per_candidate(asked: Sequence[str]) -> list[str]:
    """What one candidate's job scores: the metrics asked for, with terms in place of pool-relative ones."""
    return [name for name in with_terms(asked) if not METRICS[name].pool_relative]


def pool_rows(rows: Iterable[tables.Score], asked: Sequence[str]) -> list[tables.Score]:
    """Scores of the pool-relative metrics asked for, at every layer and level of `rows` (those of one ranking)."""
    names = [name for name in asked if METRICS[name].pool_relative]
    if not names:
        return []
    places: dict[tuple[str, str], dict[str, dict[str, Score]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row.metric in OF_SOURCE:
            continue  # they stand at a layer of their own, where the pool's metrics have no terms
        places[row.layer, row.level][row.checkpoint_id][row.metric] = score_of(row)
        ranking_id = row.ranking_id
    return [
        score_row(
            each,
            ranking_id=ranking_id,
            checkpoint_id=checkpoint_id,
            metric=metric,
            layer=layer,
            level=level,
            facts={},
        )
        for (layer, level), candidates in places.items()
        for checkpoint_id, scores in pool_scores(candidates, names).items()
        for metric, each in scores.items()
    ]
