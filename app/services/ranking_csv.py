"""A ranking as a table for spreadsheets: one row per candidate, best first, one column per score."""

import csv
import io
from typing import Any

from app.schemas.rankings import RankingView

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(ranking: RankingView) -> str:
    """RFC 4180 text; text that a spreadsheet would run as a formula gets an apostrophe before it."""
    columns = sorted(
        {
            _column(score.metric, score.layer, score.level)
            for one in ranking.candidates
            for score in one.scores
        }
    )
    baselines = sorted({name for one in ranking.candidates for name in one.baselines})
    reasons = {row.checkpoint_id: row.reason for row in ranking.left_out}
    fields = [
        "rank",
        "checkpoint_id",
        "name",
        "state",
        "value",
        "interval_low",
        "interval_high",
        "z",
        "zero_point",
        "gain",
        "gain_low",
        "gain_high",
        "chance_of_best",
        "group",
        "map",
        "parameters",
        "peak_memory_bytes",
        "ms_per_image",
        "device",
        "licence",
    ]
    fields += [f"{name}_{part}" for name in baselines for part in ("value", "rank")] + ["left_out", *columns]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, fieldnames=fields, lineterminator="\r\n")
    writer.writeheader()
    for one in ranking.candidates:
        row: dict[str, Any] = {
            "rank": one.rank,
            "checkpoint_id": one.checkpoint_id,
            "name": one.name,
            "state": one.state,
            "value": one.value,
            "interval_low": one.interval and one.interval[0],
            "interval_high": one.interval and one.interval[1],
            "z": one.z,
            "zero_point": one.zero_point,
            "gain": one.gain,
            "gain_low": one.gain_interval and one.gain_interval[0],
            "gain_high": one.gain_interval and one.gain_interval[1],
            "chance_of_best": one.chance_of_best,
            "group": one.group,
            "map": one.map,
            **one.cost.model_dump(),
            "left_out": reasons.get(one.checkpoint_id),
        }
        for name, static in one.baselines.items():
            row |= {f"{name}_value": static["value"], f"{name}_rank": static["rank"]}
        row |= {_column(score.metric, score.layer, score.level): score.value for score in one.scores}
        writer.writerow({field: _inert(value) for field, value in row.items()})
    return out.getvalue()


def _column(metric: str, layer: str, level: str) -> str:
    return f"{metric}@{layer}.{level}"


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
