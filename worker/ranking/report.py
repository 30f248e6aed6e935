"""A ranking as flat rows, for CSV files and tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from worker.ranking.order import STATIC_BASELINES
from worker.ranking.records import Candidate, Ordering, Row
from worker.ranking.rule import is_defined

_SCORE = "{metric}@{layer}.{level}"


def flat_rows(ordering: Ordering, candidates: Sequence[Candidate]) -> list[dict[str, object]]:
    """One row per candidate, the ordered ones first; every row has the same keys in the same order.

    rank is None for one left out, with the reason beside it. Each score has a column `metric@layer.level`,
    None where undefined.
    """
    by_id = {candidate.id: candidate for candidate in candidates}
    columns = sorted(
        {
            _SCORE.format(metric=scored.metric, layer=scored.layer, level=scored.level)
            for candidate in candidates
            for scored in candidate.scores
        }
    )
    placed = [
        _row(
            by_id[row.id],
            columns,
            place=row,
            reason=None,
        )
        for row in ordering.rows
    ]
    others = [_row(by_id[out.id], columns, place=None, reason=out.reason) for out in ordering.left_out]
    return placed + others


def as_csv(rows: Sequence[dict[str, object]]) -> str:
    """RFC 4180 text of `flat_rows`; cells a spreadsheet would run as a formula are quoted with an apostrophe."""
    if not rows:
        return ""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({key: _inert(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _row(
    candidate: Candidate,
    columns: Sequence[str],
    *,
    place: Row | None,
    reason: str | None,
) -> dict[str, object]:
    scores = {
        _SCORE.format(metric=scored.metric, layer=scored.layer, level=scored.level): scored.value
        for scored in candidate.scores
        if is_defined(scored)
    }
    return {
        "rank": place and place.rank,
        "id": candidate.id,
        "name": candidate.name,
        "value": place and place.value,
        "interval_low": place and place.interval and place.interval[0],
        "interval_high": place and place.interval and place.interval[1],
        "z": place and place.z,
        "chance_of_best": place and place.chance_of_best,
        "group": place and place.group,
        **{f"rank_by_{name}": place and place.static_ranks.get(name) for name in STATIC_BASELINES},
        "parameters": candidate.parameters,
        "peak_memory_bytes": candidate.peak_memory_bytes,
        "ms_per_image": candidate.ms_per_image,
        "licence": candidate.licence,
        "coco_box_map": candidate.coco_box_map,
        "left_out": reason,
        **{column: scores.get(column) for column in columns},
    }


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
