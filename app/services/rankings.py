"""Rankings: making, finding, stopping, trying again, removing."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db.tables import Candidate, Checkpoint, Dataset, Event, Job, Ranking, Score, Shard, Verification
from app.errors import Conflict, NotFound
from app.ids import new_id
from app.queue import control, shard_flow
from app.queue.jobs import add_job, lock_resource
from app.queue.states import ENDED, JobKind, JobState
from app.schemas.rankings import RankBy, RankingCreate, RankingFilters, RankingQuery
from app.schemas.verifications import RankingVerify
from app.services import ranking_verify, shards, verifications
from app.services.catalogue import (
    ALL_LAYERS,
    default,
    default_names,
    names,
    pool_relative,
    readable_layers,
    region_metrics,
    size_matched,
    source_layer,
    unknown,
)
from app.services.checkpoints import unusable
from app.services.datasets import ready, with_boxes
from app.services.faults import Fault, refuse
from app.services.listing import page
from app.services.records import forget_jobs, owned
from app.settings import Settings


def normalised(asked: RankingCreate, settings: Settings) -> dict[str, Any]:
    """The request with every default filled in. Raises InvalidRequest naming each field at fault."""
    faults: list[Fault] = []
    metrics = _names("metrics", "metric", asked.metrics, names("metrics"), faults)
    level = asked.level or default("level") or "local"
    rank_by = asked.rank_by or RankBy()
    layers = _names("layers", "layer", asked.layers, [*readable_layers(), ALL_LAYERS], faults)
    matched, maps = size_matched()
    if asked.layers is None and rank_by.layer == matched:
        layers = maps
    metrics, regions = _regions(asked, metrics, level, faults)
    _rank_by(rank_by, metrics, layers, level, faults)
    if rank_by.quantity == "gain":
        faults += _no_gain(rank_by.metric, asked)
    faults += _twice("checkpoint_ids", asked.checkpoint_ids)
    if len(asked.checkpoint_ids) > settings.max_candidates:
        message = f"{len(asked.checkpoint_ids)} candidates are more than the {settings.max_candidates} allowed (DETRANK_MAX_CANDIDATES)"
        faults.append({"pointer": "/checkpoint_ids", "message": message})
    if asked.verify is not None:
        faults += ranking_verify.faults_of(asked.verify, "/verify", settings)
    refuse(faults)
    return {
        "dataset_id": asked.dataset_id,
        "checkpoint_ids": asked.checkpoint_ids,
        "name": asked.name,
        "metrics": metrics,
        "layers": layers,
        # a candidate is read at those of the default layers that it has, else at the nearest; one asked for by name it must have
        "layers_by_default": asked.layers is None,
        "level": level,
        "max_images": _or_default(asked, "max_images"),
        "image_size": _or_default(asked, "image_size"),
        "seed": asked.seed if asked.seed is not None else default("seed") or 0,
        "calibrate": asked.calibrate,
        "zero_point": asked.zero_point,
        "regions": regions,
        "keep_features": asked.keep_features,
        "shards": asked.shards,
        "shard_images": settings.shard_images,
        "rank_by": rank_by.model_dump(),
        "filters": (asked.filters or RankingFilters()).model_dump(),
        "verify": None,
    }


def create(
    session: Session,
    workspace_id: str,
    request: dict[str, Any],
    *,
    verify: RankingVerify | None = None,
    max_attempts: int = 3,
) -> Ranking:
    """A ranking of a `normalised` request with a `score` job for each candidate; what is to be verified follows its order.

    Raises InvalidRequest for ids that are not there, Conflict for a dataset or checkpoint that cannot be used.
    """
    checkpoint_ids = request["checkpoint_ids"]
    dataset, checkpoints = _targets(session, workspace_id, request["dataset_id"], checkpoint_ids)
    candidates = [checkpoints[id] for id in checkpoint_ids]
    _usable(dataset, candidates)
    if verify is not None:
        request = request | {"verify": ranking_verify.resolved(verify, candidates, "/verify")}
    request = shards.resolved(request, dataset)
    ranking = Ranking(
        id=new_id("rk"),
        workspace_id=workspace_id,
        dataset_id=dataset.id,
        state=JobState.QUEUED,
        request=request,
        created_at=datetime.now(UTC),
    )
    session.add(ranking)
    session.flush()
    for position, checkpoint_id in enumerate(checkpoint_ids):
        if request["shards"] > 1:
            job_id = shard_flow.add(
                session, ranking, checkpoint_id, request["shards"], max_attempts=max_attempts
            )
        else:
            job_id = add_job(
                session,
                workspace_id=workspace_id,
                kind=JobKind.SCORE,
                resource_id=ranking.id,
                payload={"checkpoint_id": checkpoint_id},
                max_attempts=max_attempts,
            ).id
        session.add(
            Candidate(
                ranking_id=ranking.id,
                checkpoint_id=checkpoint_id,
                position=position,
                state=JobState.QUEUED,
                job_id=job_id,
            )
        )
    session.flush()
    return ranking


def find(session: Session, workspace_id: str, id: str) -> Ranking:
    return owned(session, Ranking, workspace_id, id)


def listed(session: Session, workspace_id: str, asked: RankingQuery) -> tuple[list[Ranking], str | None]:
    query = select(Ranking).where(Ranking.workspace_id == workspace_id)
    if asked.state is not None:
        query = query.where(Ranking.state == asked.state)
    if asked.dataset_id is not None:
        query = query.where(Ranking.dataset_id == asked.dataset_id)
    if asked.checkpoint_id is not None:
        with_it = select(Candidate.ranking_id).where(Candidate.checkpoint_id == asked.checkpoint_id)
        query = query.where(Ranking.id.in_(with_it))
    return page(session, query, Ranking, asked)


def cancel(session: Session, workspace_id: str, id: str) -> Ranking:
    """Asks all its jobs to stop; harmless for one that has ended."""
    owned(session, Ranking, workspace_id, id)
    return control.cancel_ranking(session, id)


def retry(session: Session, workspace_id: str, id: str) -> Ranking:
    """Tries again what failed or was cancelled in it; what has been scored or verified is kept.

    Raises Conflict where nothing is.
    """
    owned(session, Ranking, workspace_id, id)
    ranking = lock_resource(session, Ranking, id)
    if ranking.state not in ENDED:
        raise Conflict(
            f"the ranking {id} is {ranking.state}; what failed in it can be tried again when it has ended"
        )
    again = failed_jobs(session, ranking)
    if not again:
        raise Conflict(
            f"nothing in the ranking {id} failed or was cancelled, so there is nothing to try again"
        )
    for job_id in again:
        control.retry(session, job_id)
    return ranking


def failed_jobs(session: Session, ranking: Ranking) -> list[str]:
    """What can be tried again in a ranking: candidates, else verifications, else its order."""
    lost = session.scalars(
        select(Job)
        .where(
            Job.resource_id == ranking.id,
            Job.kind.in_([JobKind.SCORE.value, JobKind.SHARD.value]),
            Job.state.in_([JobState.FAILED.value, JobState.CANCELLED.value]),
        )
        .order_by(Job.id)
    )
    # one for each candidate: the shards of one are tried again together
    again = list({job.payload["checkpoint_id"]: job.id for job in lost}.values())
    if not again:
        again = session.scalars(
            select(Verification.job_id)
            .where(Verification.ranking_id == ranking.id, Verification.state.in_(["failed", "cancelled"]))
            .order_by(Verification.position)
        ).all()
    ordering = session.get(Job, ranking.rank_job_id) if ranking.rank_job_id else None
    if not again and ordering is not None and ordering.state in (JobState.FAILED, JobState.CANCELLED):
        again = [ordering.id]
    return list(again)


def remove(session: Session, workspace_id: str, id: str) -> Ranking:
    """Deletes a ranking that has ended, with its scores, verifications and jobs; checkpoints fine-tuned in it stay.

    Raises Conflict while it is at work, or where it is a part of something.
    """
    ranking = owned(session, Ranking, workspace_id, id, lock=True)
    if ranking.state not in ENDED:
        raise Conflict(
            f"the ranking is {ranking.state}: POST /v1/rankings/{id}:cancel first, or wait until it ends"
        )
    if owner := ranking.search_id or ranking.study_id:
        raise Conflict(
            f"the ranking is a part of {owner}; delete that instead",
            errors=[{"pointer": "", "message": f"used by {owner}"}],
        )
    forget(session, ranking)
    return ranking


def forget(session: Session, ranking: Ranking) -> None:
    """Deletes a ranking that has ended, with all that belongs to it."""
    id = ranking.id
    forget_jobs(session, id)
    parts = session.scalars(select(Verification.id).where(Verification.ranking_id == id)).all()
    verifications.forget(session, list(parts))
    session.execute(delete(Score).where(Score.ranking_id == id))
    session.execute(delete(Shard).where(Shard.ranking_id == id))
    session.execute(delete(Candidate).where(Candidate.ranking_id == id))
    session.execute(delete(Event).where(Event.stream_id == id))
    session.delete(ranking)
    session.flush()


def _or_default(asked: RankingCreate, field: str) -> int | None:
    # null is an answer of its own (all images, each checkpoint's own size); only what is left out has a default
    return getattr(asked, field) if field in asked.model_fields_set else default(field)


def _names(
    field: str, what: str, asked: list[str] | None, known: list[str], faults: list[Fault]
) -> list[str]:
    if asked is None:
        return default_names(field)
    faults += [
        {"pointer": f"/{field}/{index}", "message": _not_to_be_read(name) or unknown(what, name, known)}
        for index, name in enumerate(asked)
        if name not in known
    ]
    faults += _twice(field, asked)
    return asked


def _not_to_be_read(name: str) -> str | None:
    place, of_source = source_layer()
    if name != place:
        return None
    return f"{place} is no layer to read features at: ask for the metrics scored there, {' and '.join(of_source)}, whatever layers you name"


def _twice(field: str, values: Sequence[str]) -> list[Fault]:
    return [
        {"pointer": f"/{field}/{index}", "message": f"{value} is named twice"}
        for index, value in enumerate(values)
        if value in values[:index]
    ]


def _regions(
    asked: RankingCreate, metrics: list[str], level: str, faults: list[Fault]
) -> tuple[list[str], dict[str, Any] | None]:
    """The metrics that the level has, and how regions are drawn: None where no metric reads them."""
    reading = set(region_metrics())
    if level == "global" and asked.metrics is None:
        metrics = [name for name in metrics if name not in reading]
    elif level == "global":
        message = "it reads regions, which are boxes of their own: ask for level local or both"
        faults += [
            {"pointer": f"/metrics/{index}", "message": f"{name} has no level global: {message}"}
            for index, name in enumerate(metrics)
            if name in reading
        ]
    if reading.isdisjoint(metrics):
        if asked.regions is not None:
            message = f"no metric asked for reads regions; these do: {', '.join(sorted(reading))}"
            faults.append({"pointer": "/regions", "message": message})
        return metrics, None
    given = asked.regions.model_dump(exclude_none=True) if asked.regions else {}
    regions = default("regions") | given
    if regions["shift"] == regions["scale"] == 0:
        message = "with shift and scale both 0 there is nothing to correct: let one of them be more"
        faults.append({"pointer": "/regions/shift", "message": message})
    return metrics, regions


def _rank_by(rank_by: RankBy, metrics: list[str], layers: list[str], level: str, faults: list[Fault]) -> None:
    asked_layers = readable_layers() if ALL_LAYERS in layers else layers
    levels = ["local", "global"] if level == "both" else [level]
    place, of_source = source_layer()
    matched, maps = size_matched()
    if not set(maps).isdisjoint(asked_layers):
        asked_layers = [*asked_layers, matched]
    if rank_by.metric in region_metrics():
        levels = ["local"]
    if set(of_source).issuperset([rank_by.metric] if rank_by.metric else metrics):
        asked_layers, levels = [place], ["local"]
    elif rank_by.metric is None and not set(of_source).isdisjoint(metrics):
        asked_layers, levels = [*asked_layers, place], sorted({*levels, "local"}, reverse=True)
    for field, value, computed in (
        ("metric", rank_by.metric, metrics),
        ("layer", rank_by.layer, asked_layers),
        ("level", rank_by.level, levels),
    ):
        if value is not None and value not in computed:
            message = f"cannot rank by {value!r}, which is not computed; computed are: {', '.join(computed)}"
            faults.append({"pointer": f"/rank_by/{field}", "message": message})


def _no_gain(metric: str | None, asked: RankingCreate) -> list[Fault]:
    """Why nothing can be ordered by gains."""
    why = None
    if not asked.zero_point:
        why = "gains need the untrained architectures: ask with zero_point, or rank by the quantity value"
    elif metric in source_layer()[1] or metric in pool_relative():
        why = f"an untrained architecture has no {metric}: rank by the quantity value, or by another metric"
    return [] if why is None else [{"pointer": "/rank_by/quantity", "message": why}]


def _targets(
    session: Session, workspace_id: str, dataset_id: str, checkpoint_ids: Sequence[str]
) -> tuple[Dataset, dict[str, Checkpoint]]:
    faults: list[Fault] = []
    try:
        dataset = owned(session, Dataset, workspace_id, dataset_id)
    except NotFound as missing:
        faults.append({"pointer": "/dataset_id", "message": missing.detail})
    checkpoints: dict[str, Checkpoint] = {}
    for start in range(0, len(checkpoint_ids), 500):  # SQLite takes a limited number of parameters
        some = Checkpoint.id.in_(checkpoint_ids[start : start + 500])
        # key share: none of them can be deleted before the ranking that names them is there
        query = (
            select(Checkpoint)
            .where(Checkpoint.workspace_id == workspace_id, some)
            .with_for_update(read=True, key_share=True)
        )
        checkpoints |= {checkpoint.id: checkpoint for checkpoint in session.scalars(query)}
    faults += [
        {
            "pointer": f"/checkpoint_ids/{index}",
            "message": f"there is no checkpoint {id} in this workspace; GET /v1/checkpoints lists them",
        }
        for index, id in enumerate(checkpoint_ids)
        if id not in checkpoints
    ]
    refuse(faults)
    return dataset, checkpoints


def _usable(dataset: Dataset, checkpoints: Sequence[Checkpoint]) -> None:
    ready(dataset)
    with_boxes(dataset, "scores are computed on objects")
    reasons = [(index, unusable(checkpoint)) for index, checkpoint in enumerate(checkpoints)]
    refuse([{"pointer": f"/checkpoint_ids/{index}", "message": why} for index, why in reasons if why], Conflict)
