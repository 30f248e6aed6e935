"""What a `study` job finds: scores and mAP of each candidate on each dataset, and why some are missing."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session, defer

from app.db import tables
from app.db.documents import Manifest, StudyLeftOut, StudySpent
from app.errors import NotFound, detail_of
from app.queue.states import JobState
from worker.beliefs import checkpoint_facts, dataset_facts
from worker.handlers.results import told_apart
from worker.metrics.baselines import static_scores
from worker.studies.measures.foreknown import Known, half_of
from worker.studies.measures.gains import gain_place
from worker.studies.measures.observations import Observation, Place

Key = tuple[str, str]  # ids of dataset and checkpoint


@dataclass(frozen=True)
class Found:
    """datasets, candidates: by the names they have in the study. truth: the images that mAP was measured on, in words;
    known: what a belief knows of them."""

    request: dict[str, Any]
    names: dict[str, str]
    datasets: tuple[str, ...]
    candidates: tuple[str, ...]
    observations: tuple[Observation, ...]
    left_out: list[StudyLeftOut]
    warnings: list[str]
    spent: StudySpent
    trainings: int
    truth: str
    known: Known

    def reasons(self) -> list[str]:
        return [f"{one['candidate'] or 'all'} on {one['dataset']}: {one['reason']}" for one in self.left_out]


@dataclass(frozen=True)
class Tuned:
    """The mAP of one candidate on one dataset by seed. why: for each seed without mAP, the reason."""

    maps: dict[int, float]
    splits: frozenset[str]
    why: dict[int, str]


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate's scores, its undefined ones with the reason, and its static figures. why: the reason where nothing was scored."""

    scores: dict[Place, float]
    undefined: dict[Place, str]
    static: dict[str, float | None]
    object_pixels: float | None
    why: str | None


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
    observations: list[Observation] = []
    left_out: list[StudyLeftOut] = []
    splits: set[str] = set()
    for dataset_id in asked["dataset_ids"]:
        ranking = rankings[dataset_id]
        if ranking.state != JobState.SUCCEEDED:
            reason = detail_of(ranking.error, f"it was {ranking.state}")
            left_out.append(_left_out(names, dataset_id, None, f"its ranking {ranking.state}: {reason}"))
            continue
        scored = _scored(session, ranking)
        for checkpoint_id in asked["checkpoint_ids"]:
            it, mine = scored[checkpoint_id], tuned[dataset_id, checkpoint_id]
            if it.why or not mine.maps:
                reason = it.why or "; ".join(dict.fromkeys(mine.why.values()))
                left_out.append(_left_out(names, dataset_id, checkpoint_id, reason))
                continue
            splits |= mine.splits
            observations.append(
                Observation(
                    names[dataset_id],
                    names[checkpoint_id],
                    it.scores,
                    it.static,
                    mine.maps,
                    it.undefined,
                    it.object_pixels,
                )
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
        known=_known(session, study_id, asked, names),
    )


def _known(session: Session, study_id: str, asked: dict[str, Any], names: dict[str, str]) -> Known:
    """Datasets and candidates by their names, and validation mAP at half of the trainings."""
    row = tables.Verification
    query = select(row.dataset_id, row.checkpoint_id, row.curves, row.plan).where(
        row.study_id == study_id, row.state == JobState.SUCCEEDED.value
    )
    looks: dict[Key, list[tuple[list[tuple[int, float]], int]]] = defaultdict(list)
    images: dict[str, int] = {}
    for dataset_id, checkpoint_id, curves, plan in session.execute(query):
        seen = [
            (point["iteration"], point["val"]["map"])
            for point in curves or []
            if (point.get("val") or {}).get("map") is not None
        ]
        steps = (plan or {}).get("iterations") or (seen[-1][0] if seen else 1)
        looks[dataset_id, checkpoint_id].append((seen, steps))
        if plan:
            images[dataset_id] = plan["images"]
    half = {key: half_of(own) for key, own in looks.items()}
    targets, candidates = {}, {}
    for dataset in session.scalars(select(tables.Dataset).where(tables.Dataset.id.in_(asked["dataset_ids"]))):
        if dataset.digest is not None:
            facts = dataset_facts(dataset, None)
            targets[names[dataset.id]] = replace(facts, key=dataset.digest, images=images.get(dataset.id))
    for id in asked["checkpoint_ids"]:
        checkpoint = session.get(tables.Checkpoint, id)
        if checkpoint is not None and checkpoint.weights_sha256 is not None:
            candidates[names[id]] = checkpoint_facts(checkpoint)
    return Known(
        targets,
        candidates,
        {(names[d], names[c]): value for (d, c), value in half.items() if value is not None},
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
            row.dataset_id,
            row.checkpoint_id,
            row.request["seed"].as_integer().label("seed"),
            row.state,
            row.error,
            row.seconds,
            result["test"]["images"].as_integer().label("test_images"),
            result["test"]["box"]["map"].as_float().label("test_map"),
            result["val"]["box"]["map"].as_float().label("val_map"),
            result["reused_from"].as_string().label("reused_from"),
        )
        .where(row.study_id == study_id)
        .order_by(row.position)
    )
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
                why = f"its fine-tuning {row.state}: {detail_of(row.error, 'no reason is known')}"
            after = Tuned(before.maps, before.splits, {**before.why, row.seed: why})
        found[row.dataset_id, row.checkpoint_id] = after
    return found


def _scored(session: Session, ranking: tables.Ranking) -> dict[str, ScoredCandidate]:
    """By checkpoint id."""
    rows: dict[str, list[tables.Score]] = defaultdict(list)
    for row in session.scalars(select(tables.Score).where(tables.Score.ranking_id == ranking.id)):
        rows[row.checkpoint_id].append(row)
    query = (
        select(tables.Candidate, tables.Checkpoint)
        .join(tables.Checkpoint, tables.Checkpoint.id == tables.Candidate.checkpoint_id)
        .where(tables.Candidate.ranking_id == ranking.id)
    )
    return {
        checkpoint.id: _scored_one(candidate, checkpoint, rows[checkpoint.id])
        for candidate, checkpoint in session.execute(query)
    }


def _scored_one(
    candidate: tables.Candidate, checkpoint: tables.Checkpoint, rows: Iterable[tables.Score]
) -> ScoredCandidate:
    mine = sorted(rows, key=lambda row: (row.metric, row.layer, row.level))
    scores: dict[Place, float] = {}
    undefined: dict[Place, str] = {}
    for row in mine:
        place = (row.metric, row.layer, row.level)
        if row.undefined is not None:
            undefined[place] = row.undefined
        elif row.value is not None:
            scores[place] = row.value
        if row.details and (gain := row.details.get("gain")) is not None:
            scores[gain_place(place)] = gain
    manifest = checkpoint.manifest or Manifest()
    parameters = candidate.cost["parameters"] if candidate.cost else checkpoint.parameters
    figures = static_scores({**manifest.get("published", {}), "parameters": parameters})
    sizes = (row.details.get("object_pixels") for row in mine if row.details)
    why = None
    if candidate.state != JobState.SUCCEEDED:
        why = f"its scoring {candidate.state}: {detail_of(candidate.error, 'no reason is known')}"
    return ScoredCandidate(
        scores,
        undefined,
        {name: each.value for name, each in figures.items()},
        next((size for size in sizes if size), None),
        why,
    )


def _left_out(names: dict[str, str], dataset_id: str, checkpoint_id: str | None, reason: str) -> StudyLeftOut:
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


def _spent(session: Session, rankings: Iterable[tables.Ranking], rows: Iterable[Row]) -> StudySpent:
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
