"""Waiting for jobs and long work to change: one query for all who wait in this process, not one for each."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from app.api.caching import matches
from app.db.engine import Database
from app.queue.states import ENDED
from app.services.works import Stream

POLL_S = 0.2
_IDS_AT_ONCE = 500

log = logging.getLogger("detrank.api")


@dataclass(frozen=True)
class Sight:
    """What one look at a row says; None in place of it where the row is gone."""

    event_seq: int
    version: int
    state: str


@dataclass
class Watched:
    """A row that somebody waits for."""

    table: Stream
    waiting: int = 0
    sight: Sight | None = None
    looks: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def change(self, timeout_s: float) -> None:
        """Returns when another sight has been seen, or after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.changed.wait(), timeout_s)


class RowWatch:
    """Looks at all watched rows every POLL_S seconds, as long as there are any."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watched: dict[str, Watched] = {}
        self._poller: asyncio.Task[None] | None = None
        self.closing = False

    @contextlib.asynccontextmanager
    async def on(self, table: Stream, id: str) -> AsyncIterator[Watched]:
        """Watches a row as long as the block runs."""
        watched = self._watched.setdefault(id, Watched(table))
        watched.waiting += 1
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            yield watched
        finally:
            watched.waiting -= 1
            if watched.waiting == 0:
                self._watched.pop(id, None)

    async def close(self) -> None:
        """Lets everybody who waits go on, so that the process can end."""
        self.closing = True
        for watched in self._watched.values():
            watched.changed.set()
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller

    async def _poll(self) -> None:
        while self._watched:
            try:
                sights = await run_in_threadpool(
                    self._look, {id: one.table for id, one in self._watched.items()}
                )
            except Exception:  # the database may be away for a moment; those who wait go on waiting
                log.warning("cannot look at what changed", exc_info=True)
                await asyncio.sleep(1.0)
                continue
            for id, watched in list(self._watched.items()):
                if id in sights and (watched.looks == 0 or sights[id] != watched.sight):
                    watched.sight = sights[id]
                    watched.looks += 1
                    watched.changed.set()
                    watched.changed = asyncio.Event()
            await asyncio.sleep(POLL_S)

    def _look(self, wanted: dict[str, Any]) -> dict[str, Sight | None]:
        found: dict[str, Sight | None] = dict.fromkeys(wanted)
        with self._database.reading() as session:
            for table in set(wanted.values()):
                ids = [id for id, its in wanted.items() if its is table]
                for start in range(0, len(ids), _IDS_AT_ONCE):
                    query = select(table.id, table.event_seq, table.version, table.state)
                    for row in session.execute(query.where(table.id.in_(ids[start : start + _IDS_AT_ONCE]))):
                        found[row.id] = Sight(row.event_seq, row.version, row.state)
        return found


async def until_news(
    watch: RowWatch, table: Stream, id: str, if_none_match: str | None, seconds: float
) -> None:
    """Returns at another version than the caller knows; where none was given, when the row has ended."""
    until = asyncio.get_running_loop().time() + seconds
    async with watch.on(table, id) as watched:
        while not watch.closing:
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                return
            sight = watched.sight
            if sight is None and watched.looks > 0:
                return
            if sight is not None and (
                sight.state in ENDED or (if_none_match and not matches(if_none_match, sight.version))
            ):
                return
            await watched.change(left)
