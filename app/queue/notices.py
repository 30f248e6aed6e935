"""What webhooks are told when a job ends: a delivery for each, written in the transaction of the end itself."""

import json
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Delivery, Job, Webhook
from app.db.webhook_tables import DeliveryState
from app.db.work import name_of
from app.ids import new_id
from app.queue.mirror import row_of


class Ending(StrEnum):
    """Kinds of things whose end can be told."""

    DATASET = "dataset"
    CHECKPOINT = "checkpoint"
    RANKING = "ranking"
    VERIFICATION = "verification"
    SEARCH = "search"
    STUDY = "study"
    PRETRAINING = "pretraining"
    PSEUDO_LABELLING = "pseudo-labelling"
    JOB = "job"  # every one, also the parts of larger work


def tell(session: Session, job: Job, *, now: datetime) -> None:
    """Writes deliveries for the end of a locked job, and of the row that it is the job of."""
    listening = session.scalars(
        select(Webhook).where(Webhook.workspace_id == job.workspace_id, Webhook.disabled_at.is_(None))
    ).all()
    if not listening:
        return
    for kind, data in _ends(session, job):
        for webhook in listening:
            if kind in webhook.events:
                add(session, webhook, f"{kind}.{data['state']}", data, now=now)


def add(session: Session, webhook: Webhook, type: str, data: dict[str, Any], *, now: datetime) -> Delivery:
    """An event to be delivered as soon as may be."""
    body = {"type": type, "timestamp": now.isoformat(), "data": data}
    delivery = Delivery(
        id=new_id("msg"),
        webhook_id=webhook.id,
        workspace_id=webhook.workspace_id,
        type=type,
        body=json.dumps(body, separators=(",", ":")),
        state=DeliveryState.PENDING,
        attempts=0,
        not_before=now,
        created_at=now,
    )
    session.add(delivery)
    return delivery


def _ends(session: Session, job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    own = {"kind": job.kind, "resource_id": job.resource_id}
    yield "job", {"id": job.id, "state": job.state, "error": job.error, "job_id": job.id} | own
    row = row_of(session, job)
    if row is not None and row.job_id == job.id:
        data = {"id": row.id, "state": row.state, "error": row.error, "job_id": job.id}
        yield name_of(type(row)), data
