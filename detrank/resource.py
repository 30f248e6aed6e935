"""What every kind of resource offers."""

import time
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

import httpx

from detrank import http
from detrank.documents import Addressed, Record
from detrank.methods import IO, Has, call, stream
from detrank.steps import Pause, Show, Steps, Stream

D = TypeVar("D", bound=Addressed)
Seen = Callable[[Any], Generator[Any, Any, None]]

ENDED = frozenset({"ready", "invalid", "succeeded", "failed", "cancelled"})
LONGEST_PAUSE_S = 1.0


class Resource(Has[IO], Generic[IO, D]):
    """All there are of one kind, such as `client.rankings`."""

    def __init__(self, io: IO, kind: type[D]) -> None:
        self.io, self.kind, self._path = io, kind, f"/v1/{kind.path}"

    def made(self, record: Record) -> D:
        """The document that a record of the service is."""
        return self.kind(record, self.io.address.url)

    def ended(self, id: str, timeout_s: float | None, seen: Seen) -> Generator[Any, Any, D]:
        """Steps that look at it again and again, by ETag, until its state is final. Raises TimeoutError.

        seen: steps to do with every sight of it.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        tag: str | None = None
        record: Record = {}
        pause = 0.1
        while True:
            headers = {"If-None-Match": tag} if tag else None
            answer = yield from http.request("GET", f"{self._path}/{id}", headers=headers)
            if answer.status_code != httpx.codes.NOT_MODIFIED:
                record, tag = answer.json(), answer.headers.get("ETag")
            document = self.made(record)
            yield from seen(document)
            if record["state"] in ENDED:
                return document
            if until is not None and time.monotonic() > until:
                raise TimeoutError(f"{id} is still {record['state']} after {timeout_s:g} s")
            yield Pause(pause)
            pause = min(LONGEST_PAUSE_S, pause * 1.5)

    def pages(self, filters: Record) -> Generator[Any, Any, Record]:
        """Steps that get one page."""
        page = yield from http.get(self._path, **filters)
        return page | {"items": [self.made(one) for one in page["items"]]}

    def got(self, id: str, asked: Record | None = None) -> Generator[Any, Any, D]:
        """The steps of `get`."""
        return self.made((yield from http.get(f"{self._path}/{id}", **asked or {})))

    @call
    def get(self, id: str, **asked: Any) -> Steps[D]:
        """asked: of the view, such as `order_by="predicted_map"` of a ranking."""
        return (yield from self.got(id, asked))

    @call
    def page(self, **filters: Any) -> Steps[Record]:
        """`{"items": [...], "next_cursor": ...}`. Filters: limit, cursor, sort, state, ..."""
        return (yield from self.pages(filters))

    @stream
    def list(self, **filters: Any) -> Stream[D]:
        """All of them, page after page, newest first."""
        cursor = None
        while True:
            page = yield from self.pages({"limit": 100} | filters | {"cursor": cursor})
            for one in page["items"]:
                yield Show(one)
            cursor = page.get("next_cursor")
            if not cursor:
                return

    @stream
    def follow(self, id: str, *, timeout_s: float | None = None) -> Stream[D]:
        """It again and again until its state is final. Raises TimeoutError."""
        yield from self.ended(id, timeout_s, _shown)

    @call
    def wait(self, id: str, *, timeout_s: float | None = None) -> Steps[D]:
        """It in its final state. Raises TimeoutError."""
        return (yield from self.ended(id, timeout_s, _unseen))


class Kept(Resource[IO, D]):
    """What stays until somebody deletes it."""

    @call
    def delete(self, id: str) -> Steps[None]:
        yield from http.request("DELETE", f"{self._path}/{id}")


class Work(Resource[IO, D]):
    """What takes long: it can be stopped, tried again, and listened to."""

    @call
    def cancel(self, id: str) -> Steps[D]:
        return self.made((yield from http.post(f"{self._path}/{id}:cancel")))

    @call
    def retry(self, id: str) -> Steps[D]:
        return self.made((yield from http.post(f"{self._path}/{id}:retry")))

    @call
    def prioritise(self, id: str, priority: int) -> Steps[D]:
        """Its jobs go before those of the workspace with a smaller priority (-10 to 10)."""
        body = {"priority": priority}
        return self.made((yield from http.request("PATCH", f"{self._path}/{id}", json=body)).json())

    @stream
    def events(self, id: str, *, after: int | None = None) -> Stream[Record]:
        """`{"id", "event", "data"}`, from the first or from after a number, until it has ended."""
        yield from http.events(f"{self._path}/{id}/events", after=after)


class Reported(Work[IO, D], Kept[IO, D]):
    """Work with tables and pictures to show for it."""

    @call
    def csv(self, id: str) -> Steps[str]:
        return (yield from http.text(f"{self._path}/{id}.csv", "text/csv"))

    @call
    def file(self, url: str) -> Steps[bytes]:
        """A picture, plot or table by the `url` that its document gives."""
        return (yield from http.content(url))


def _shown(document: Addressed) -> Generator[Show[Any], Any, None]:
    yield Show(document)


def _unseen(_: Addressed) -> Generator[Any, Any, None]:
    yield from ()
