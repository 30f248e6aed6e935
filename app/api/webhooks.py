"""/v1/webhooks"""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from app.api.deps import Context, ContextDep, IdempotencyKey
from app.api.once import answer_once
from app.api.paging import paged
from app.api.problems import responses
from app.db.tables import Webhook
from app.schemas.common import Page, PageQuery
from app.schemas.webhooks import (
    DeliveriesOf,
    DeliveryQuery,
    DeliveryView,
    NewWebhook,
    WebhookCreate,
    WebhookUpdate,
    WebhookView,
)
from app.services import webhooks
from app.services.idempotency import Answer
from app.services.listing import listed

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


@router.post("", status_code=201, response_model=NewWebhook, responses=responses(400, 409, 413))
def create_webhook(
    request: Request, context: ContextDep, body: WebhookCreate, key: IdempotencyKey = None
) -> JSONResponse:
    """Have an address told when something ends. Deliveries are signed after Standard Webhooks; the secret is shown this once."""
    return _with_secret(
        request,
        context,
        key,
        body.model_dump(),
        lambda session: webhooks.create(session, context.workspace_id, context.settings, body),
    )


@router.get("", response_model=Page[WebhookView])
def list_webhooks(
    request: Request, response: Response, context: ContextDep, asked: Annotated[PageQuery, Query()]
) -> Page:
    """Webhooks, newest first."""
    with context.database.reading() as session:
        found, cursor = listed(session, context.workspace_id, webhooks.LISTING, asked)
        return paged(request, response, [webhooks.view(one) for one in found], cursor)


@router.get("/{id}", response_model=WebhookView, responses=responses(404))
def get_webhook(id: str, context: ContextDep) -> WebhookView:
    """One webhook."""
    with context.database.reading() as session:
        return webhooks.view(webhooks.find(session, context.workspace_id, id))


@router.patch("/{id}", response_model=WebhookView, responses=responses(400, 404, 413))
def update_webhook(id: str, context: ContextDep, body: WebhookUpdate) -> WebhookView:
    """Change its address or what it is told, disable it, or enable it again."""
    with context.database.unit_of_work() as session:
        webhook = webhooks.find(session, context.workspace_id, id, lock=True)
        webhooks.update(session, webhook, context.settings, body)
        return webhooks.view(webhook)


@router.delete("/{id}", status_code=204, response_class=Response, responses=responses(404))
def delete_webhook(id: str, context: ContextDep) -> None:
    """Delete it with its deliveries."""
    with context.database.unit_of_work() as session:
        webhooks.remove(session, webhooks.find(session, context.workspace_id, id, lock=True))


@router.post("/{id}:rotate", status_code=201, response_model=NewWebhook, responses=responses(404))
def rotate_webhook(
    id: str, request: Request, context: ContextDep, key: IdempotencyKey = None
) -> JSONResponse:
    """Give it a new secret; for 24 hours deliveries are signed by the old one as well."""

    def act(session: Session) -> Webhook:
        webhook = webhooks.find(session, context.workspace_id, id, lock=True)
        webhooks.rotate(session, webhook)
        return webhook

    return _with_secret(request, context, key, None, act)


@router.post("/{id}:test", status_code=202, response_model=DeliveryView, responses=responses(404, 409))
def send_test_event(
    id: str, request: Request, context: ContextDep, key: IdempotencyKey = None
) -> JSONResponse:
    """Send it an event `webhook.test`."""

    def act(session: Session) -> Answer:
        webhook = webhooks.find(session, context.workspace_id, id, lock=True)
        return _delivery(webhooks.delivery_view(webhooks.test(session, webhook)))

    return answer_once(request, context, key, None, act)


@router.get("/{id}/deliveries", response_model=Page[DeliveryView], responses=responses(404))
def list_deliveries(
    id: str,
    request: Request,
    response: Response,
    context: ContextDep,
    asked: Annotated[DeliveryQuery, Query()],
) -> Page:
    """What it was and will be told, newest first; kept for 30 days."""
    with context.database.reading() as session:
        webhook = webhooks.find(session, context.workspace_id, id)
        of_it = DeliveriesOf(**asked.model_dump(), webhook_id=webhook.id)
        found, cursor = listed(session, context.workspace_id, webhooks.DELIVERIES, of_it)
        return paged(request, response, [webhooks.delivery_view(one) for one in found], cursor)


@router.post(
    "/{id}/deliveries/{delivery_id}:resend",
    status_code=202,
    response_model=DeliveryView,
    responses=responses(404, 409),
)
def resend_delivery(
    id: str, delivery_id: str, request: Request, context: ContextDep, key: IdempotencyKey = None
) -> JSONResponse:
    """Send it again, now and as often as a new one, under the same `webhook-id`."""

    def act(session: Session) -> Answer:
        webhook = webhooks.find(session, context.workspace_id, id)
        delivery = webhooks.delivery_of(session, webhook, delivery_id)
        webhooks.resend(webhook, delivery)
        return _delivery(webhooks.delivery_view(delivery))

    return answer_once(request, context, key, None, act)


def _delivery(view: DeliveryView) -> Answer:
    return Answer(202, view.model_dump(mode="json"), f"/v1/webhooks/{view.webhook_id}/deliveries")


def _with_secret(
    request: Request, context: Context, key: str | None, body: object, act: Callable[[Session], Webhook]
) -> JSONResponse:
    """201 with the secret, which is in no answer that is kept."""
    secrets: list[str] = []

    def once(session: Session) -> Answer:
        webhook = act(session)
        secrets.append(webhook.secret)
        return Answer(201, webhooks.new_view(webhook).model_dump(mode="json"), f"/v1/webhooks/{webhook.id}")

    def complete(answer: Answer) -> Answer:
        return (
            Answer(answer.status, answer.body | {"secret": secrets[0]}, answer.location)
            if secrets
            else answer
        )

    return answer_once(request, context, key, body, once, complete)
