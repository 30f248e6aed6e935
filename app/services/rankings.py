"""Rankings: making them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.db.tables import Candidate, Checkpoint, Dataset, Job, Ranking
from app.errors import Conflict, Fault, NotFound, refuse
from app.ids import new_id
from app.queue import tree
from app.queue.jobs import MAX_ATTEMPTS
from app.queue.states import JobKind, JobState
from app.schemas.verifications import RankingVerify
from app.services import ranking_requests, ranking_verify
from app.services.checkpoints import unusable
from app.services.datasets import ready, with_boxes
from app.services.listing import Listing
from app.services.records import named, owned


def _with_candidate(checkpoint_id: str) -> ColumnElement[bool]:
    query = select(Candidate.ranking_id).where(Candidate.checkpoint_id == checkpoint_id)
    return Ranking.id.in_(query)


LISTING = Listing(Ranking, "rk", {"checkpoint_id": _with_candidate}, unread=("result",))


def create(
    session: Session,
    workspace_id: str,
    request: dict[str, Any],
    *,
    parent: Job | None = None,
    verify: RankingVerify | None = None,
    max_attempts: int = MAX_ATTEMPTS,
) -> Ranking:
    """A ranking of a `normalised` request and its job, with a `score` job for each candidate below it.

    What is to be verified follows its order.

    parent: the locked job of the search or study that it belongs to.

    Raises InvalidRequest for ids that are not there, Conflict for what cannot be used.
    """
    dataset, candidates = checked(session, workspace_id, request)
    _refuse_unordered(session, workspace_id, request.get("compare_with"))
    if verify is not None:
        request = request | {"verify": ranking_verify.resolved(verify, candidates, "/verify")}
    request = ranking_requests.with_shards(request, dataset)
    ranking = Ranking(
        id=new_id("rk"),
        workspace_id=workspace_id,
        dataset_id=dataset.id,
        state=JobState.QUEUED,
        request=request,
        created_at=datetime.now(UTC),
    )
    if parent is not None:
        setattr(ranking, f"{parent.kind}_id", parent.resource_id)
    session.add(ranking)
    session.flush()
    job = tree.add(
        session,
        JobKind.RANK,
        ranking.id,
        workspace_id=workspace_id,
        parent=parent,
        max_attempts=max_attempts,
    )
    ranking.job_id = job.id
    for position, checkpoint_id in enumerate(request["checkpoint_ids"]):
        candidate = Candidate(
            ranking_id=ranking.id,
            checkpoint_id=checkpoint_id,
            position=position,
            state=JobState.QUEUED,
            job_id=_add_scoring(session, job, checkpoint_id, request["shards"]).id,
        )
        session.add(candidate)
    session.flush()
    return ranking


def _refuse_unordered(session: Session, workspace_id: str, ranking_id: str | None) -> None:
    """Raises InvalidRequest for a ranking to compare with that is not there, Conflict for one without an order."""
    faults: list[Fault] = []
    other = named(session, Ranking, workspace_id, ranking_id, "/compare_with", faults)
    refuse(faults)
    if other is not None and other.result is None:
        message = f"the ranking {other.id} has no order to compare with: it is {other.state}"
        raise Conflict(message, errors=[{"pointer": "/compare_with", "message": message}])


def _add_scoring(session: Session, job: Job, checkpoint_id: str, shards: int) -> Job:
    """The job that scores a candidate. With several shards it waits for those that read them."""
    payload: dict[str, Any] = {"checkpoint_id": checkpoint_id}
    if shards > 1:
        payload["shards"] = shards
    id, space = job.resource_id, job.workspace_id
    score = tree.add(session, JobKind.SCORE, id, workspace_id=space, parent=job, payload=payload)
    for shard in range(shards if shards > 1 else 0):
        part = payload | {"shard": shard}
        tree.add(session, JobKind.SHARD, id, workspace_id=space, parent=score, payload=part)
    return score


def checked(session: Session, workspace_id: str, request: dict[str, Any]) -> tuple[Dataset, list[Checkpoint]]:
    """What a `normalised` request names, the candidates in its order. Raises as `create`."""
    ids = request["checkpoint_ids"]
    dataset, checkpoints = _targets(session, workspace_id, request["dataset_id"], ids)
    candidates = [checkpoints[id] for id in ids]
    _usable(dataset, candidates)
    return dataset, candidates


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
    refuse(
        [{"pointer": f"/checkpoint_ids/{index}", "message": why} for index, why in reasons if why], Conflict
    )
