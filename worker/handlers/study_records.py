"""What a `study` job finds: scores and mAP of each candidate on each dataset, and why some are missing."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session, defer

from app.db import tables
from app.errors import NotFound
from app.queue.states import JobState
from worker.handlers.names import told_apart
from worker.metrics.baselines import static_scores
from worker.studies.observations import Observation, Place
from worker.studies.zero_point import gain_place

Key = tuple[str, str]  # ids of dataset and checkpoint


@dataclass(frozen=True)
class Found:
    """datasets, candidates: by the names they have in the study. truth: the images that mAP was measured on, in words."""

    request: dict[str, Any]
    names: dict[str, str]
    datasets: tuple[str, ...]
    candidates: tuple[str, ...]
    observations: tuple[Observation, ...]
    left_out: list[dict[str, Any]]
    warnings: list[str]
    spent: dict[str, Any]
    trainings: int
    truth: str

    def reasons(self) -> list[str]:
        return [f"{one['candidate'] or 'all'} on {one['dataset']}: {one['reason']}" for one in self.left_out]


@dataclass(frozen=True)
class Tuned:
    """What the seeds of one candidate on one dataset came to. why: of each seed without mAP."""

    maps: dict[int, float]
    splits: frozenset[str]
    why: dict[int, str]


def found_of(session: Session, study_id: str) -> Found:
    """Raises NotFound."""
    study = session.get(tables.Study, study_id)
    if study is None:
        raise NotFound(f"the study {study_id} is gone")
    asked = study.request
    names = _unique(session, tables.Dataset, asked["dataset_ids"])
    names |= _unique(session, tables.Checkpoint, asked["checkpoint_ids"])
    query = select(tables.Ranking).where(tables.Ranking.study_id == study_id)
    rankings = {row.dataset_id: row for row in session.scalars(query.options(defer(tables.Ranking.result)))}
    rows = _trainings(session, study_id)
    tuned = _tuned(rows)
    observations, left_out, splits = [], [], set()
    for dataset_id in asked["dataset_ids"]:
        ranking = rankings[dataset_id]
        if ranking.state != JobState.SUCCEEDED:
            why = (ranking.error or {}).get("detail") or f"it was {ranking.state}"
            left_out.append(_left_out(names, dataset_id, None, f"its ranking {ranking.state}: {why}"))
            continue
        scored = _scored(session, ranking)
        for checkpoint_id in asked["checkpoint_ids"]:
            scores, undefined, static, pixels, why = scored[checkpoint_id]
            mine = tuned[dataset_id, checkpoint_id]
            if why or not mine.maps:
                reason = why or "; ".join(dict.fromkeys(mine.why.values()))
                left_out.append(_left_out(names, dataset_id, checkpoint_id, reason))
                continue
            splits |= mine.splits
            observations.append(
                Observation(names[dataset_id], names[checkpoint_id], scores, static, mine.maps, undefined, pixels)
            )
    return Found(
        request=asked,
        names=names,
        datasets=tuple(names[id] for id in asked["dataset_ids"]),
        candidates=tuple(names[id] for id in asked["checkpoint_ids"]),
        observations=tuple(observations),
        left_out=left_out,
        warnings=_warnings(names, tuned, splits),
        spent=_spent(session, rankings.values(), rows),
        trainings=len(rows),
        truth=" or ".join(f"{split} images" for split in sorted(splits)) or "no images",
    )


def _unique(session: Session, table: Any, ids: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(ids), 500):  # SQLite takes a limited number of parameters
        query = select(table.id, table.name).where(table.id.in_(ids[start : start + 500]))
        found |= dict(session.execute(query).all())
    return told_apart({id: found[id] for id in ids})


def _trainings(session: Session, study_id: str) -> list[Row]:
    """One for each pair and seed, without the curves and tables by class that a whole result holds."""
    row, result = tables.Verification, tables.Verification.result
    query = (
        select(
            row.dataset_id, row.checkpoint_id, row.request["seed"].as_integer().label("seed"), row.state, row.error, row.seconds,
            result["test"]["images"].as_integer().label("test_images"), result["test"]["box"]["map"].as_float().label("test_map"),
            result["val"]["box"]["map"].as_float().label("val_map"), result["reused_from"].as_string().label("reused_from"),
        )
        .where(row.study_id == study_id)
        .order_by(row.position)
    )  # fmt: skip
    return list(session.execute(query))


def _tuned(rows: Iterable[Row]) -> dict[Key, Tuned]:
    found: dict[Key, Tuned] = defaultdict(lambda: Tuned({}, frozenset(), {}))
    for row in rows:
        before = found[row.dataset_id, row.checkpoint_id]
        split, value = ("val", row.val_map) if row.test_images is None else ("test", row.test_map)
        if row.state == JobState.SUCCEEDED and value is not None:
            after = Tuned({**before.maps, row.seed: value}, before.splits | {split}, before.why)
        else:
            why = "mAP is undefined on the images it was measured on"
            if row.state != JobState.SUCCEEDED:
                why = f"its fine-tuning {row.state}: {(row.error or {}).get('detail') or 'no reason is known'}"
            after = Tuned(before.maps, before.splits, {**before.why, row.seed: why})
        found[row.dataset_id, row.checkpoint_id] = after
    return found


def _scored(
    session: Session, ranking: tables.Ranking
) -> dict[str, tuple[dict[Place, float], dict[Place, str], dict[str, float | None], float | None, str | None]]:
    """Candidate to scores, undefined ones with their reason, static figures, the size of objects, and why it was not scored at all."""
    rows: dict[str, list[tables.Score]] = defaultdict(list)
    for row in session.scalars(select(tables.Score).where(tables.Score.ranking_id == ranking.id)):
        rows[row.checkpoint_id].append(row)
    query = (
        select(tables.Candidate, tables.Checkpoint)
        .join(tables.Checkpoint, tables.Checkpoint.id == tables.Candidate.checkpoint_id)
        .where(tables.Candidate.ranking_id == ranking.id)
    )
    found = {}
    for candidate, checkpoint in session.execute(query):
        mine = sorted(rows[checkpoint.id], key=lambda row: (row.metric, row.layer, row.level))
        scores = {(row.metric, row.layer, row.level): row.value for row in mine if row.undefined is None}
        scores |= {
            gain_place((row.metric, row.layer, row.level)): gain for row in mine if (gain := (row.details or {}).get("gain")) is not None
        }
        undefined = {(row.metric, row.layer, row.level): row.undefined for row in mine if row.undefined is not None}
        figures = (checkpoint.manifest or {}).get("published") or {}
        parameters = (candidate.cost or {}).get("parameters") or checkpoint.parameters
        static = {name: each.value for name, each in static_scores({**figures, "parameters": parameters}).items()}
        why = None
        if candidate.state != JobState.SUCCEEDED:
            why = f"its scoring {candidate.state}: {(candidate.error or {}).get('detail') or 'no reason is known'}"
        pixels = next((size for row in mine if (size := (row.details or {}).get("object_pixels"))), None)
        found[checkpoint.id] = (scores, undefined, static, pixels, why)
    return found


def _left_out(names: dict[str, str], dataset_id: str, checkpoint_id: str | None, reason: str) -> dict[str, Any]:
    return {
        "dataset_id": dataset_id,
        "dataset": names[dataset_id],
        "checkpoint_id": checkpoint_id,
        "candidate": names[checkpoint_id] if checkpoint_id else None,
        "reason": reason,
    }


def _warnings(names: dict[str, str], tuned: dict[Key, Tuned], splits: set[str]) -> list[str]:
    said = [
        f"{names[checkpoint_id]} on {names[dataset_id]} stands on {len(each.maps)} of {len(each.maps) + len(each.why)} seeds: "
        + "; ".join(dict.fromkeys(each.why.values()))
        for (dataset_id, checkpoint_id), each in tuned.items()
        if each.maps and each.why
    ]
    if "val" in splits:
        said.append(
            "Where a dataset has no test images, mAP is that of the validation images by which the weights were chosen: a little too high."
        )
    return said


def _spent(session: Session, rankings: Iterable[tables.Ranking], rows: Iterable[Row]) -> dict[str, Any]:
    ids = [ranking.id for ranking in rankings]
    timings = session.scalars(select(tables.Candidate.timings).where(tables.Candidate.ranking_id.in_(ids)))
    taken = [row for row in rows if row.reused_from]
    trained = [row for row in rows if not row.reused_from]
    return {
        "scoring_s": round(sum(float((each or {}).get("total") or 0.0) for each in timings), 1),
        "training_s": round(sum(row.seconds or 0.0 for row in trained), 1),
        "reused": len(taken),
        "reused_s": round(sum(row.seconds or 0.0 for row in taken), 1),
    }
