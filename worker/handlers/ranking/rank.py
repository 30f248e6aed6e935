"""Job `rank`: the order of a ranking's candidates from their scores."""

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import documents, tables
from app.errors import NotFound, detail_of
from app.queue import ranking_verifications
from app.queue.states import JobState
from app.queue.training_costs import Foreseen
from worker import beliefs
from worker.attempt import Attempt, ClaimedJob
from worker.data.dataset import sample_images
from worker.features.errors import Unextractable
from worker.features.objects import objects_of
from worker.files import scratch
from worker.handlers.datasets import annotations_of
from worker.handlers.origin import origin_of
from worker.handlers.ranking import verified
from worker.handlers.ranking.agreement import agreement
from worker.handlers.ranking.calibration import gain_interval_of, score_of
from worker.handlers.ranking.foreseen import foreseen_of
from worker.handlers.ranking.pool import pool_rows
from worker.handlers.ranking.request import filters_of, rank_by_of, spec_of
from worker.handlers.ranking.score_rows import write_score
from worker.handlers.results import keep_file
from worker.metrics import METRICS
from worker.ranking.cost_plot import cost_chart
from worker.ranking.order import order
from worker.ranking.plots import bar_chart
from worker.ranking.records import Candidate, Ordering, Scored, Target


def run(attempt: Attempt, job: ClaimedJob) -> Callable[[Session], None]:
    """Orders what was scored, says who is left out and why, and compares scores with mAP where candidates were verified.

    Returns the write of ranks, result and plots.
    """
    attempt.stage("ranking")
    with attempt.database.reading() as session:
        ranking = session.get(tables.Ranking, job.resource_id)
        if ranking is None:
            raise NotFound(f"the ranking {job.resource_id} is gone")
        dataset = session.get_one(tables.Dataset, ranking.dataset_id)
        candidates, cancelled, relative = _candidates(session, ranking)
        predicted = beliefs.predicted(session, ranking)
        trained = verified.trained_of(session, ranking.id)
        origin = origin_of(session, dataset, ranking.request.get("checkpoint_ids", []))
    seed = ranking.request.get("seed") or 0
    with scratch(attempt.settings.scratch_dir) as folder:
        target = _target(attempt, dataset, ranking.request, folder)
        ordering = order(candidates, target, rank_by_of(ranking.request), filters_of(ranking.request), seed)
        attempt.check()
        title = ranking.request.get("name") or f"Candidates for {dataset.name}"
        plot = keep_file(attempt, bar_chart(ordering, folder / "plot.png", title), "image/png")
        drawn = verified.plot(trained, candidates, ordering, folder / "map.png", title)
        map_plot = keep_file(attempt, drawn, "image/png") if drawn else None
        drawn = cost_chart(ordering, candidates, predicted, folder / "cost.png", title)
        cost_plot = keep_file(attempt, drawn, "image/png") if drawn else None
    result = result_of(ordering, cancelled)
    result["warnings"] = [*origin, *result["warnings"]]
    with attempt.database.reading() as session:
        result["agreement"] = agreement(session, ranking.request, ordering, seed)
    result["verified_ids"] = verified.succeeded(trained)
    result["verified"] = verified.verified_of(trained, candidates, ordering, seed)
    ranks = {row.id: row.rank for row in ordering.rows}

    def finish(session: Session) -> None:
        row = session.get(tables.Ranking, job.resource_id)
        if row is None:
            return
        row.result, row.plot_sha256, row.map_plot_sha256 = result, plot, map_plot
        row.cost_plot_sha256 = cost_plot
        for score in relative:
            write_score(session, row, score)
        beliefs.put(session, row)
        for each in session.scalars(select(tables.Candidate).where(tables.Candidate.ranking_id == row.id)):
            each.rank = ranks.get(each.checkpoint_id)
        ranking_verifications.add_wanted(session, row, session.get_one(tables.Job, job.id))

    return finish


def _candidates(
    session: Session, ranking: tables.Ranking
) -> tuple[list[Candidate], set[str], list[tables.Score]]:
    """The candidates in the order of the request, the ids of those that were cancelled, and pool-relative scores."""
    query = (
        select(tables.Candidate, tables.Checkpoint)
        .join(tables.Checkpoint, tables.Checkpoint.id == tables.Candidate.checkpoint_id)
        .where(tables.Candidate.ranking_id == ranking.id)
        .order_by(tables.Candidate.position)
    )
    pairs = session.execute(query).all()
    whole = {candidate.checkpoint_id for candidate, _ in pairs if candidate.state == JobState.SUCCEEDED}
    asked = ranking.request["metrics"]
    # what an earlier order left of the pool's own metrics is made anew
    kept = [
        row
        for row in session.scalars(select(tables.Score).where(tables.Score.ranking_id == ranking.id))
        if row.checkpoint_id in whole and not METRICS[row.metric].pool_relative
    ]
    relative = pool_rows(kept, asked)
    scores: dict[str, list[Scored]] = defaultdict(list)
    sizes: dict[str, float] = {}
    for row in (*kept, *relative):
        scores[row.checkpoint_id].append(_scored(row))
        if row.details and (pixels := row.details.get("object_pixels")):
            sizes[row.checkpoint_id] = pixels
    cancelled = {candidate.checkpoint_id for candidate, _ in pairs if candidate.state == JobState.CANCELLED}
    trainings = foreseen_of(session, [candidate.cost for candidate, _ in pairs])
    found = [
        _candidate(candidate, checkpoint, scores[checkpoint.id], sizes.get(checkpoint.id), training)
        for (candidate, checkpoint), training in zip(pairs, trainings, strict=True)
    ]
    return found, cancelled, relative


def _scored(row: tables.Score) -> Scored:
    found = score_of(row)
    return Scored(
        row.metric,
        row.layer,
        row.level,
        found.value,
        found.undefined,
        z=found.z,
        interval=found.interval,
        notes=found.notes,
        zero_point=row.details.get("zero_point") if row.details else None,
        gain_interval=gain_interval_of(row),
    )


def _candidate(
    candidate: tables.Candidate,
    checkpoint: tables.Checkpoint,
    scores: list[Scored],
    object_pixels: float | None,
    training: Foreseen,
) -> Candidate:
    error = None
    if candidate.state != JobState.SUCCEEDED:
        error = detail_of(candidate.error, f"its job was {candidate.state}")
    cost, manifest = candidate.cost, checkpoint.manifest or documents.Manifest()
    published = manifest.get("published", {})
    inference = cost.get("inference") if cost else None
    return Candidate(
        id=checkpoint.id,
        name=checkpoint.name,
        scores=tuple(sorted(scores, key=lambda each: (each.metric, each.layer, each.level))),
        error=error,
        parameters=cost["parameters"] if cost else checkpoint.parameters,
        peak_memory_bytes=cost["peak_memory_bytes"] if cost else None,
        ms_per_image=cost["ms_per_image"] if cost else None,
        inference_ms=inference["ms_per_image"] if inference else None,
        inference_memory_bytes=inference["peak_memory_bytes"] if inference else None,
        training_s=training.seconds,
        training_memory_bytes=training.peak_memory_bytes,
        fits=training.fits,
        licence=checkpoint.licence,
        coco_box_map=published.get("coco_box_map"),
        imagenet_top1=published.get("imagenet_top1"),
        rf100_vl_ap=published.get("rf100_vl_ap"),
        untrained=frozenset(
            layer["name"] for layer in manifest.get("layers", []) if not layer.get("trained", True)
        ),
        architecture=" over ".join(filter(None, [manifest.get("architecture"), manifest.get("backbone")]))
        or None,
        object_pixels=object_pixels,
        unread=tuple(manifest.get("warnings") or ()),
    )


def _target(attempt: Attempt, dataset: tables.Dataset, request: dict[str, Any], folder: Path) -> Target:
    """What the scores stand on: the same sample as every candidate saw, from the annotations alone."""
    opened, spec = annotations_of(attempt, dataset, folder), spec_of(request)
    try:
        objects = objects_of(opened, sample_images(opened, spec.max_images, spec.seed, spec.split))
        counts = Counter(objects.labels.tolist())
    except Unextractable:
        counts = Counter()
    return Target({name: counts[index] for index, name in enumerate(opened.categories)})


def result_of(ordering: Ordering, cancelled: set[str]) -> documents.RankingResult:
    """The ordering as JSON."""
    return {
        "ranked_by": {
            "metric": ordering.metric,
            "layer": ordering.layer,
            "level": ordering.level,
            "quantity": ordering.quantity,
            "chosen_by": ordering.chosen_by,
        },
        "order": [
            {
                "checkpoint_id": row.id,
                "name": row.name,
                "rank": row.rank,
                "value": row.value,
                "z": row.z,
                "interval": _limits(row.interval),
                "zero_point": row.zero_point,
                "gain": row.gain,
                "gain_interval": _limits(row.gain_interval),
                "score_chance_of_highest": row.score_chance_of_highest,
                "group": row.group,
                "near": list(row.near),
                "static_ranks": dict(row.static_ranks),
            }
            for row in ordering.rows
        ],
        "summary": ordering.summary,
        "groups": [list(group) for group in ordering.groups],
        "ties": [list(group) for group in ordering.ties],
        "left_out": [
            {
                "checkpoint_id": out.id,
                "name": out.name,
                "code": "cancelled" if out.id in cancelled else out.code,
                "reason": out.reason,
            }
            for out in ordering.left_out
        ],
        "warnings": [{"code": warning.code, "detail": warning.detail} for warning in ordering.warnings],
        "baselines": {name: dict(values) for name, values in ordering.static.items()},
    }


def _limits(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
