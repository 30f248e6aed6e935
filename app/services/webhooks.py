"""Webhooks: making, changing, removing, and sending again."""

import base64
import json
import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import delete
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Delivery, Webhook
from app.db.webhook_tables import DeliveryState
from app.errors import Conflict, InvalidRequest, NotFound
from app.ids import new_id
from app.queue import deliveries, notices
from app.queue.posting import PORTS
from app.schemas.webhooks import DeliveryView, NewWebhook, WebhookCreate, WebhookUpdate, WebhookView
from app.services.listing import Listing
from app.services.records import owned
from app.settings import Settings
from outbound.addresses import is_public

LISTING = Listing(Webhook, "wh")
DELIVERIES = Listing(Delivery, "msg")
MOST = 20
OLD_SECRET_SIGNS = timedelta(hours=24)


def create(session: Session, workspace_id: str, settings: Settings, asked: WebhookCreate) -> Webhook:
    """Raises InvalidRequest for an address that nothing may be sent to, Conflict where there are too many."""
    check_url(asked.url, settings)
    if session.query(Webhook).where(Webhook.workspace_id == workspace_id).count() >= MOST:
        raise Conflict(f"a workspace may have {MOST} webhooks; delete one first")
    webhook = Webhook(
        id=new_id("wh"),
        workspace_id=workspace_id,
        url=asked.url,
        description=asked.description,
        events=list(dict.fromkeys(asked.events)),
        secret=_new_secret(),
        created_at=database_now(session),
    )
    session.add(webhook)
    session.flush()
    return webhook


def check_url(url: str, settings: Settings) -> None:
    """Raises InvalidRequest for what is no address, or plainly one of a private network; names are looked up when sending."""
    try:
        parts = urlsplit(url)
        host, scheme, _ = parts.hostname, parts.scheme, parts.port
    except ValueError:
        host = scheme = None
    wrong = None
    if not host or scheme not in PORTS:
        wrong = "give a whole address, https://example.com/path"
    elif parts.username or parts.password or parts.fragment or not url.isascii() or " " in url:
        wrong = "leave out user, password, fragment, spaces and letters beyond ASCII"
    elif not settings.webhooks_to_private and _is_private(host):
        wrong = f"{host} is in a private network; webhooks go there only where DETRANK_WEBHOOKS_TO_PRIVATE allows it"
    if wrong:
        raise InvalidRequest(wrong, errors=[{"pointer": "/url", "message": wrong}])


def _is_private(host: str) -> bool:
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return not is_public(host)
    except ValueError:  # a name
        return False


def update(session: Session, webhook: Webhook, settings: Settings, asked: WebhookUpdate) -> None:
    """Changes what was named. Raises InvalidRequest."""
    fields = asked.model_dump(exclude_unset=True)
    if asked.url is not None:
        check_url(asked.url, settings)
        webhook.url = asked.url
    if asked.events is not None:
        webhook.events = list(dict.fromkeys(asked.events))
    if "description" in fields:
        webhook.description = asked.description
    if asked.enabled is True:
        webhook.disabled_at = webhook.disabled_why = webhook.failing_since = None
    elif asked.enabled is False and webhook.disabled_at is None:
        webhook.disabled_at, webhook.disabled_why = database_now(session), "by request"


def rotate(session: Session, webhook: Webhook) -> None:
    """A new secret; the old one signs as well for OLD_SECRET_SIGNS."""
    webhook.old_secret, webhook.old_secret_until = webhook.secret, database_now(session) + OLD_SECRET_SIGNS
    webhook.secret = _new_secret()


def remove(session: Session, webhook: Webhook) -> None:
    session.execute(delete(Delivery).where(Delivery.webhook_id == webhook.id))
    session.delete(webhook)


def test(session: Session, webhook: Webhook) -> Delivery:
    """An event that tells of nothing. Raises Conflict where the webhook is disabled."""
    _require_enabled(webhook)
    data = {"id": webhook.id, "state": "test"}
    made = notices.add(session, webhook, "webhook.test", data, now=database_now(session))
    session.flush()
    return made


def delivery_of(session: Session, webhook: Webhook, id: str) -> Delivery:
    """Raises NotFound."""
    found = session.get(Delivery, id, with_for_update=True) if id.isascii() and id.isprintable() else None
    if found is None or found.webhook_id != webhook.id:
        raise NotFound(
            f"there is no delivery {id!r} of {webhook.id}; GET /v1/webhooks/{webhook.id}/deliveries"
        )
    return found


def resend(webhook: Webhook, delivery: Delivery) -> None:
    """Raises Conflict where the webhook is disabled."""
    _require_enabled(webhook)
    deliveries.again(delivery)


def _require_enabled(webhook: Webhook) -> None:
    if webhook.disabled_at is not None:
        raise Conflict(
            f"the webhook {webhook.id} is disabled ({webhook.disabled_why}): enable it first, PATCH with "
            '{"enabled": true}'
        )


def find(session: Session, workspace_id: str, id: str, *, lock: bool = False) -> Webhook:
    """Raises NotFound."""
    return owned(session, Webhook, workspace_id, id, lock=lock)


def view(webhook: Webhook) -> WebhookView:
    return WebhookView(**_shown(webhook))


def new_view(webhook: Webhook) -> NewWebhook:
    """As it may be kept: without the secret."""
    return NewWebhook(**_shown(webhook), secret=None)


def delivery_view(delivery: Delivery) -> DeliveryView:
    waits = delivery.state == DeliveryState.PENDING
    return DeliveryView(
        id=delivery.id,
        webhook_id=delivery.webhook_id,
        type=delivery.type,
        state=delivery.state,
        attempts=delivery.attempts,
        status=delivery.status,
        answer=delivery.answer,
        body=json.loads(delivery.body),
        next_attempt_at=delivery.not_before if waits else None,
        created_at=delivery.created_at,
        ended_at=delivery.ended_at,
    )


def _shown(webhook: Webhook) -> dict[str, Any]:
    names = (
        "id",
        "url",
        "description",
        "events",
        "disabled_at",
        "disabled_why",
        "failing_since",
        "created_at",
    )
    return {name: getattr(webhook, name) for name in names} | {"enabled": webhook.disabled_at is None}


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
