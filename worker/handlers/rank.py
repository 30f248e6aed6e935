"""Job `rank`: the order of a ranking's candidates from their scores."""

import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import tables
from app.errors import NotFound
from app.queue.states import JobState
from worker.data.dataset import open_dataset, sample_images
from worker.features.errors import Unextractable
from worker.features.objects import objects_of
from worker.files import scratch
from worker.handlers import verified
from worker.handlers.blobs import keep_file
from worker.handlers.calibration import gain_interval_of, score_of
from worker.handlers.pool import pool_rows
from worker.handlers.request import filters_of, rank_by_of, spec_of
from worker.handlers.score import write_score
from worker.metrics import METRICS
from worker.ranking.order import order
from worker.ranking.plots import bar_chart
from worker.ranking.records import Candidate, Ordering, Scored, Target
from worker.step import JobView, Step


def run(step: Step, job: JobView) -> Callable[[Session], None]:
    """Orders what was scored, says who is left out and why, and compares scores with mAP where candidates were verified.

    Returns the write of ranks, result and plots.
    """
    step.stage("ranking")
    with step.database.reading() as session:
        ranking = session.get(tables.Ranking, job.resource_id)
        if ranking is None:
            raise NotFound(f"the ranking {job.resource_id} is gone")
        dataset = session.get(tables.Dataset, ranking.dataset_id)
        candidates, cancelled, relative = _candidates(session, ranking)
        trained = verified.trained_of(session, ranking.id)
    seed = ranking.request.get("seed") or 0
    with scratch(step.settings.scratch_dir) as folder:
        target = _target(step, dataset, ranking.request, folder)
        ordering = order(candidates, target, rank_by_of(ranking.request), filters_of(ranking.request), seed)
        step.check()
        title = ranking.request.get("name") or f"Candidates for {dataset.name}"
        plot = keep_file(step, bar_chart(ordering, folder / "plot.png", title), "image/png")
        drawn = verified.plot(trained, candidates, ordering, folder / "map.png", title)
        map_plot = keep_file(step, drawn, "image/png") if drawn else None
    result = result_of(ordering, cancelled) | {
        "verified_ids": verified.succeeded(trained),
        "verified": verified.verified_of(trained, candidates, ordering, seed),
    }
    ranks = {row.id: row.rank for row in ordering.rows}

    def finish(session: Session) -> None:
        row = session.get(tables.Ranking, job.resource_id)
        if row is None:
            return
        row.result, row.plot_sha256, row.map_plot_sha256 = result, plot, map_plot
        for score in relative:
            write_score(session, row, score)
        for each in session.scalars(select(tables.Candidate).where(tables.Candidate.ranking_id == row.id)):
            each.rank = ranks.get(each.checkpoint_id)

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
        if pixels := (row.details or {}).get("object_pixels"):
            sizes[row.checkpoint_id] = pixels
    cancelled = {candidate.checkpoint_id for candidate, _ in pairs if candidate.state == JobState.CANCELLED}
    found = [
        _candidate(candidate, checkpoint, scores[checkpoint.id], sizes.get(checkpoint.id))
        for candidate, checkpoint in pairs
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
        zero_point=(row.details or {}).get("zero_point"),
        gain_interval=gain_interval_of(row),
    )


def _candidate(
    candidate: tables.Candidate,
    checkpoint: tables.Checkpoint,
    scores: list[Scored],
    object_pixels: float | None,
) -> Candidate:
    error = None
    if candidate.state != JobState.SUCCEEDED:
        error = (candidate.error or {}).get("detail") or f"its job was {candidate.state}"
    cost, manifest = candidate.cost or {}, checkpoint.manifest or {}
    return Candidate(
        id=checkpoint.id,
        name=checkpoint.name,
        scores=tuple(sorted(scores, key=lambda each: (each.metric, each.layer, each.level))),
        error=error,
        parameters=cost.get("parameters") or checkpoint.parameters,
        peak_memory_bytes=cost.get("peak_memory_bytes"),
        ms_per_image=cost.get("ms_per_image"),
        licence=checkpoint.licence,
        coco_box_map=(manifest.get("published") or {}).get("coco_box_map"),
        untrained=frozenset(
            layer["name"] for layer in manifest.get("layers", ()) if not layer.get("trained", True)
        ),
        architecture=" over ".join(filter(None, [manifest.get("architecture"), manifest.get("backbone")])) or None,
        object_pixels=object_pixels,
    )


def _target(step: Step, dataset: tables.Dataset, request: dict[str, Any], folder: Path) -> Target:
    """What the scores stand on: the same sample as every candidate saw, from the annotations alone."""
    with (
        step.store.open(dataset.archive_sha256) as file,
        zipfile.ZipFile(file) as archive,
        archive.open("annotations.json") as source,
        (folder / "annotations.json").open("wb") as copy,
    ):
        while piece := source.read(1 << 20):
            copy.write(piece)
    opened, spec = open_dataset(folder), spec_of(request)
    try:
        objects = objects_of(opened, sample_images(opened, spec.max_images, spec.seed, spec.split))
        counts = Counter(objects.labels.tolist())
    except Unextractable:
        counts = Counter()
    return Target({name: counts[index] for index, name in enumerate(opened.categories)})


def result_of(ordering: Ordering, cancelled: set[str]) -> dict[str, Any]:
    """The ordering as JSON: ranked_by, order, summary, groups, ties, left_out, warnings, baselines."""
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
                "interval": row.interval and list(row.interval),
                "zero_point": row.zero_point,
                "gain": row.gain,
                "gain_interval": row.gain_interval and list(row.gain_interval),
                "chance_of_best": row.chance_of_best,
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
