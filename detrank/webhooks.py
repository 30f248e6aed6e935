"""Webhooks: addresses that are told when something ends."""

from datetime import datetime
from typing import Any

from detrank import http
from detrank.documents import Addressed, Document, Record
from detrank.methods import IO, call, stream
from detrank.resource import Kept
from detrank.steps import Show, Steps, Stream


class Webhook(Addressed):
    """An address that is told. What signs, `secret`, is shown once, where it is made."""

    path = "webhooks"
    description: str | None
    events: list[str]
    enabled: bool
    disabled_at: datetime | None
    disabled_why: str | None
    failing_since: datetime | None
    created_at: datetime


class Delivery(Document):
    """One event for one webhook: pending, delivered or failed."""

    id: str
    webhook_id: str
    type: str
    state: str
    attempts: int
    status: int | None
    answer: str | None
    body: Record
    next_attempt_at: datetime | None
    created_at: datetime
    ended_at: datetime | None


class Webhooks(Kept[IO, Webhook]):
    """Those of your workspace."""

    @call
    def create(
        self, url: str, *, events: list[str] | None = None, description: str | None = None
    ) -> Steps[Webhook]:
        """events: kinds of things whose end is told, such as ranking, dataset; without them all but `job`."""
        body = http.given({"url": url, "events": events, "description": description})
        return self.made((yield from http.post(self._path, body)))

    @call
    def change(self, id: str, **fields: Any) -> Steps[Webhook]:
        """Fields: url, events, description, enabled."""
        answer = yield from http.request("PATCH", f"{self._path}/{id}", json=http.given(fields))
        return self.made(answer.json())

    @call
    def rotate(self, id: str) -> Steps[Webhook]:
        """A new `secret`; the old one signs as well for a day."""
        return self.made((yield from http.post(f"{self._path}/{id}:rotate")))

    @call
    def test(self, id: str) -> Steps[Delivery]:
        """The delivery of an event `webhook.test`."""
        return Delivery((yield from http.post(f"{self._path}/{id}:test")))

    @stream
    def deliveries(self, id: str, **filters: Any) -> Stream[Delivery]:
        """What it was and will be told, newest first. Filter: state."""
        cursor = None
        while True:
            asked = {"limit": 100} | filters | {"cursor": cursor}
            page = yield from http.get(f"{self._path}/{id}/deliveries", **asked)
            for one in page["items"]:
                yield Show(Delivery(one))
            cursor = page.get("next_cursor")
            if not cursor:
                return

    @call
    def resend(self, id: str, delivery_id: str) -> Steps[Delivery]:
        return Delivery((yield from http.post(f"{self._path}/{id}/deliveries/{delivery_id}:resend")))
