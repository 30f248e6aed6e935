"""A ranking as a table for spreadsheets: one row per candidate, best first, one column per score."""

from typing import Any

from app.schemas.ranking_views import CandidateView, RankingView
from app.services import spreadsheet


def as_csv(ranking: RankingView) -> str:
    """The ranking as `spreadsheet.as_csv` writes tables."""
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
        "predicted_map",
        "predicted_map_low",
        "predicted_map_high",
        "chance_of_best",
        "score_chance_of_highest",
        "group",
        "map",
        "parameters",
        "peak_memory_bytes",
        "ms_per_image",
        "device",
        "licence",
        "inference_ms",
        "inference_memory_bytes",
        "frontier",
        "training_recipe",
        "training_s",
        "training_memory_bytes",
        "device_memory_bytes",
        "fits",
    ]
    fields += [f"{name}_{part}" for name in baselines for part in ("value", "rank")] + ["left_out", *columns]
    rows = []
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
            "predicted_map": one.predicted_map and one.predicted_map.mean,
            "predicted_map_low": one.predicted_map and one.predicted_map.low,
            "predicted_map_high": one.predicted_map and one.predicted_map.high,
            "chance_of_best": one.chance_of_best,
            "score_chance_of_highest": one.score_chance_of_highest,
            "group": one.group,
            "map": one.map,
            **one.cost.model_dump(exclude={"inference", "training"}),
            **_inference_and_training(one),
            "frontier": one.frontier,
            "left_out": reasons.get(one.checkpoint_id),
        }
        for name, static in one.baselines.items():
            row |= {f"{name}_value": static["value"], f"{name}_rank": static["rank"]}
        row |= {_column(score.metric, score.layer, score.level): score.value for score in one.scores}
        rows.append(row)
    return spreadsheet.as_csv(fields, rows)


def _inference_and_training(one: CandidateView) -> dict[str, Any]:
    inference, training = one.cost.inference, one.cost.training
    return {
        "inference_ms": inference and inference.ms_per_image,
        "inference_memory_bytes": inference and inference.peak_memory_bytes,
        "training_recipe": training and training.recipe,
        "training_s": training and training.seconds,
        "training_memory_bytes": training and training.peak_memory_bytes,
        "device_memory_bytes": training and training.memory_bytes,
        "fits": training and training.fits,
    }


def _column(metric: str, layer: str, level: str) -> str:
    return f"{metric}@{layer}.{level}"
