"""Server-sent events of a job, a ranking, a verification, a search or a study. `Last-Event-ID` goes on where a reader stopped; the last event is `end`."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Header, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import ServerSentEvent

from app.api.deps import Context, ContextDep
from app.api.watch import Stream, Watched
from app.db.tables import Event, Job, Ranking, Search, Study, Verification
from app.services import jobs
from app.services.records import owned

LastEventId = Annotated[
    int | None, Header(alias="Last-Event-ID", ge=0, le=2**31 - 1, description="only events after this one")
]
Kind = Annotated[
    str | None, Query(pattern="^(state|progress|score|curve|log)$", description="only events of this kind")
]


class Reader:
    """One reader of a stream; made by a dependency, so that a stream that is not there is a 404 and no stream."""

    def __init__(
        self, context: Context, model: Stream, id: str, after: int, kind: str | None
    ) -> None:
        self._context, self._model, self._id, self._after, self._kind = context, model, id, after, kind

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Every event after the last one the reader has seen, as they come; then `end` with the final state."""
        async with self._context.watch.on(self._model, self._id) as watched:
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
                if jobs.is_over(state):
                    yield ServerSentEvent(event="end", data={"state": state})
                    return
                await _wait(watched, changed)

    def _read(self) -> tuple[list[Event], tuple[int, str] | None]:
        with self._context.database.reading() as session:
            now = jobs.stream_state(session, self._model, self._id)
            return jobs.events_after(session, self._id, self._after), now


async def _wait(watched: Watched, changed: object) -> None:
    # what changed between reading and waiting has already replaced the event we would wait for
    if watched.changed is changed:
        await watched.change(60.0)


def job_reader(id: str, context: ContextDep, last_event_id: LastEventId = None, kind: Kind = None) -> Reader:
    return _reader(context, Job, id, last_event_id, kind)


def ranking_reader(
    id: str, context: ContextDep, last_event_id: LastEventId = None, kind: Kind = None
) -> Reader:
    return _reader(context, Ranking, id, last_event_id, kind)


def verification_reader(
    id: str, context: ContextDep, last_event_id: LastEventId = None, kind: Kind = None
) -> Reader:
    return _reader(context, Verification, id, last_event_id, kind)


def search_reader(id: str, context: ContextDep, last_event_id: LastEventId = None, kind: Kind = None) -> Reader:
    return _reader(context, Search, id, last_event_id, kind)


def study_reader(id: str, context: ContextDep, last_event_id: LastEventId = None, kind: Kind = None) -> Reader:
    return _reader(context, Study, id, last_event_id, kind)


def _reader(context: Context, model: Stream, id: str, last: int | None, kind: str | None) -> Reader:
    with context.database.reading() as session:
        owned(session, model, context.workspace_id, id)
    return Reader(context, model, id, last or 0, kind)
