"""Whose scores get a null and an interval: by default that alone which orders the candidates, for the others nobody looks at."""

from typing import Any

from worker.handlers.ranking.pool import per_candidate
from worker.ranking.rule import PREFERRED_METRICS


def judged_of(request: dict[str, Any]) -> tuple[str, ...] | None:
    """The metrics that may order the candidates, the likeliest first; None: all are calibrated, if any.

    The first of them that has a value at a place is the one that is calibrated there.
    """
    if request.get("calibrate", True) is not None:
        return None
    asked = per_candidate(request["metrics"])
    named = (request.get("rank_by") or {}).get("metric")
    if named is not None and named not in asked:
        # it is made of other scores of the whole pool, and so is its interval
        return None
    return tuple(name for name in dict.fromkeys((named, *PREFERRED_METRICS, *asked)) if name in asked)
