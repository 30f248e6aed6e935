"""Server-sent events of a job or of long work.

`Last-Event-ID` goes on where a reader stopped; the last event is `end`. Who comes back after it is answered 204.
"""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import Header, HTTPException, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import ServerSentEvent

from app.api.deps import Context, ContextDep
from app.api.watch import Watched
from app.db.tables import Event
from app.queue.states import ENDED
from app.services import works
from app.services.works import Stream

LastEventId = Annotated[
    int | None, Header(alias="Last-Event-ID", ge=0, le=2**31 - 1, description="only events after this one")
]
EventKind = Annotated[
    str | None, Query(pattern="^(state|progress|score|curve|log)$", description="only events of this kind")
]


NO_MORE_EVENTS: dict[int | str, dict[str, Any]] = {
    204: {
        "description": "The stream has ended and `Last-Event-ID` is its last: there is no need to come back"
    }
}


class StreamReader:
    """One reader of a stream. A dependency makes it, so that a stream that is not there is a 404."""

    def __init__(self, context: Context, table: Stream, id: str, after: int, kind: str | None) -> None:
        self._context, self._table, self._id, self._after, self._kind = context, table, id, after, kind

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Every event after the last one that the reader has seen; then `end` with the final state."""
        async with self._context.watch.on(self._table, self._id) as watched:
            while not self._context.watch.closing:
                changed = watched.changed
                new, now = await run_in_threadpool(self._read)
                for event in new:
                    self._after = event.seq
                    if self._kind in (None, event.kind):
                        yield ServerSentEvent(
                            event=event.kind,
                            id=str(event.seq),
                            data=event.data | {"at": event.created_at.isoformat()},
                        )
                if now is None:
                    return
                seq, state = now
                if self._after < seq:
                    continue
                if state in ENDED:
                    yield ServerSentEvent(event="end", data={"state": state})
                    return
                await _wait(watched, changed)

    def _read(self) -> tuple[list[Event], tuple[int, str] | None]:
        with self._context.database.reading() as session:
            now = works.stream_state(session, self._table, self._id)
            return works.events_after(session, self._id, self._after), now


async def _wait(watched: Watched, changed: object) -> None:
    # what changed between reading and waiting has already replaced the event we would wait for
    if watched.changed is changed:
        await watched.change(60.0)


def reader_of(table: Stream) -> Callable[..., StreamReader]:
    """The dependency that reads the stream of a row of this table."""

    def reader(
        id: str, context: ContextDep, last_event_id: LastEventId = None, kind: EventKind = None
    ) -> StreamReader:
        with context.database.reading() as session:
            row = works.find(session, context.workspace_id, table, id)
        if last_event_id is not None and row.state in ENDED and last_event_id >= row.event_seq:
            raise HTTPException(204)  # a browser comes back after anything else
        return StreamReader(context, table, id, last_event_id or 0, kind)

    return reader
