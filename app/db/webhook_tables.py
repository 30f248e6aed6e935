"""Records of who is told when something has ended, and of what they were told."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Id


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"  # as often as it is tried


class Webhook(Base):
    """An address that is told of what ends in a workspace. The secret signs, so it is kept as it is."""

    __tablename__ = "webhook"
    __table_args__ = (Index("ix_webhook_listing", "workspace_id", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    url: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(String(200))
    events: Mapped[list[Any]]  # kinds of things whose end is told
    secret: Mapped[str] = mapped_column(String(100))
    old_secret: Mapped[str | None] = mapped_column(String(100))  # signs as well, until then
    old_secret_until: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]  # nothing has been delivered since
    disabled_at: Mapped[datetime | None]
    disabled_why: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]


class Delivery(Base):
    """One event for one webhook: written with what it tells of, sent later, and kept to be looked at."""

    __tablename__ = "delivery"
    __table_args__ = (
        Index("ix_delivery_listing", "webhook_id", "id"),
        Index("ix_delivery_by_state", "webhook_id", "state", "id"),
        Index("ix_delivery_due", "state", "not_before"),
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True)  # the same for every attempt
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhook.id"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    type: Mapped[str] = mapped_column(String(60))
    body: Mapped[str] = mapped_column(Text)  # JSON, to the byte what is signed
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime]
    status: Mapped[int | None]  # of the last answer
    answer: Mapped[str | None] = mapped_column(Text)  # its beginning, or why there was none
    created_at: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]
