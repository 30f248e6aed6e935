"""Deliveries on their way: which is due, who sends it now, what came of it, when it is tried again.

Whoever sends takes a delivery for a while (`take`), sends it without holding a lock, and writes what came of it (`note`). A
sender that is killed in between leaves a delivery that is due again: it may be sent twice, under the same id, and is never lost.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Delivery, Webhook
from app.db.webhook_tables import DeliveryState

# after each attempt that failed: a day in all
PAUSES_S = (5, 60, 300, 1800, 7200, 18000, 28800, 28800)
TAKEN_S = 60.0
GONE = 410
ANSWER_CHARACTERS = 2000


@dataclass(frozen=True)
class Parcel:
    """A delivery in the hands of one who sends it."""

    id: str
    webhook_id: str
    url: str
    body: str
    secrets: tuple[str, ...]  # each signs


@dataclass(frozen=True)
class Outcome:
    """What came of sending. status: None where there was no answer; then `answer` says why."""

    status: int | None
    answer: str

    @property
    def arrived(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def waiting(session: Session) -> list[str]:
    """Ids of webhooks that something is due for."""
    due = (
        select(Delivery.webhook_id)
        .join(Webhook, Webhook.id == Delivery.webhook_id)
        .where(Delivery.state == DeliveryState.PENDING, Delivery.not_before <= database_now(session))
        .where(Webhook.disabled_at.is_(None))
        .distinct()
    )
    return list(session.scalars(due))


def take(session: Session, webhook_id: str) -> Parcel | None:
    """The webhook's oldest delivery that is due, for TAKEN_S; None where there is none."""
    now = database_now(session)
    webhook = session.get(Webhook, webhook_id)
    if webhook is None or webhook.disabled_at is not None:
        return None
    delivery = session.scalar(
        select(Delivery)
        .where(
            Delivery.webhook_id == webhook_id,
            Delivery.state == DeliveryState.PENDING,
            Delivery.not_before <= now,
        )
        .order_by(Delivery.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if delivery is None:
        return None
    delivery.attempts += 1
    delivery.not_before = now + timedelta(seconds=TAKEN_S)
    secrets = [webhook.secret]
    if webhook.old_secret and webhook.old_secret_until and webhook.old_secret_until > now:
        secrets.append(webhook.old_secret)
    return Parcel(delivery.id, webhook_id, webhook.url, delivery.body, tuple(secrets))


def note(session: Session, parcel: Parcel, outcome: Outcome, *, give_up_s: float) -> None:
    """Writes what came of it. A webhook that took nothing for `give_up_s`, or is gone (410), is told nothing more."""
    delivery = session.get(Delivery, parcel.id, with_for_update=True)
    webhook = session.get(Webhook, parcel.webhook_id, with_for_update={"key_share": True})
    if delivery is None or webhook is None:  # deleted since
        return
    now = database_now(session)
    delivery.status, delivery.answer = outcome.status, outcome.answer[:ANSWER_CHARACTERS].replace("\x00", "")
    if outcome.arrived:
        delivery.state, delivery.ended_at = DeliveryState.DELIVERED, now
        webhook.failing_since = None
        return
    if delivery.attempts > len(PAUSES_S):
        delivery.state, delivery.ended_at = DeliveryState.FAILED, now
    else:
        delivery.not_before = now + timedelta(seconds=PAUSES_S[delivery.attempts - 1])
    webhook.failing_since = webhook.failing_since or now
    if outcome.status == GONE:
        _disable(webhook, now, "it answered 410 Gone")
    elif now - webhook.failing_since > timedelta(seconds=give_up_s):
        _disable(webhook, now, f"nothing arrived since {webhook.failing_since.isoformat(timespec='seconds')}")


def again(delivery: Delivery) -> None:
    """Send a delivery again, with all its attempts, under the same id."""
    delivery.state, delivery.attempts, delivery.ended_at = DeliveryState.PENDING, 0, None
    delivery.not_before = datetime.now(UTC)


def _disable(webhook: Webhook, now: datetime, why: str) -> None:
    webhook.disabled_at, webhook.disabled_why = now, why
