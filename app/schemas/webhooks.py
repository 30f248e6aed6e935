"""Webhooks and what was delivered to them."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from app.db.webhook_tables import DeliveryState
from app.queue.notices import Ending
from app.schemas.common import Body, Line, OneOf, PageQuery, View

Event = Annotated[str, OneOf(tuple(Ending))]
DeliveryStateName = Annotated[str, OneOf(tuple(DeliveryState))]
Events = Annotated[list[Event], Field(min_length=1, max_length=20)]
Address = Annotated[
    str,
    Line(2000),
    Field(
        description="http or https; no address of a private network", examples=["https://example.com/hook"]
    ),
]


class WebhookCreate(Body):
    url: Address
    description: Annotated[str, Line(200)] | None = None
    events: Events = Field(
        default=[ending.value for ending in Ending if ending is not Ending.JOB],
        description="kinds of things whose end is told: `ranking.succeeded`, `ranking.failed`, `dataset.ready`, `dataset.invalid`, "
        "...; `job` is every job, the parts of larger work too",
    )


class WebhookUpdate(Body):
    url: Address | None = None
    description: Annotated[str, Line(200)] | None = None
    events: Events | None = None
    enabled: bool | None = Field(default=None, description="true: goes on with what waits")


class WebhookView(View):
    """An address that is told of ends. One that takes nothing for long is disabled, and says why."""

    id: str
    url: str
    description: str | None
    events: list[Event]
    enabled: bool
    disabled_at: datetime | None
    disabled_why: str | None
    failing_since: datetime | None = Field(description="nothing has arrived since; null: the last one did")
    created_at: datetime


class NewWebhook(WebhookView):
    secret: str | None = Field(
        description="signs every delivery (Standard Webhooks), shown this once; null where an `Idempotency-Key` repeats the "
        "request"
    )


class DeliveryView(View):
    """One event for one webhook. Its id is the header `webhook-id` of every attempt."""

    id: str
    webhook_id: str
    type: str = Field(examples=["ranking.succeeded"])
    state: DeliveryStateName
    attempts: int
    status: int | None = Field(description="of the last answer; null: there was none")
    answer: str | None = Field(description="its beginning, or why there was none")
    body: dict[str, Any] = Field(description="what is sent")
    next_attempt_at: datetime | None
    created_at: datetime
    ended_at: datetime | None


class DeliveryQuery(PageQuery):
    state: DeliveryStateName | None = None


class DeliveriesOf(DeliveryQuery):
    """Of one webhook, whose id stands in the path."""

    webhook_id: str
