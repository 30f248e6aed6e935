"""How often a key and a workspace may ask: counted for all processes together, and mostly in memory.

A process takes a part of what a window still allows out of the database and spends it in memory, a twentieth of the whole
at most and ever less towards the end. So a count costs the database little, all processes together never allow more than the
limit, and one of them may refuse a little early what another still holds.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db.access_tables import RateCount
from app.db.engine import Database
from app.errors import TooManyRequests
from app.settings import Settings

PARTS = 20
MORE = -1
_FORGET_ABOVE = 10_000


@dataclass(frozen=True)
class Rate:
    """`limit` times of doing `what` in `window_s`, for each key or for a workspace as a whole."""

    what: str  # requests or uploads
    whose: str  # key or workspace
    limit: int
    window_s: int

    @property
    def name(self) -> str:
        return f"{self.whose}-{self.what}"


@dataclass
class Held:
    """What this process knows of a subject in a window: `left` may be spent here, `used` are taken by all."""

    window: int
    used: int = 0
    left: int = 0


class Rates:
    """One per process; threads may share it."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._rates = [
            rate
            for rate in (
                Rate("requests", "key", settings.key_requests_per_minute, 60),
                Rate("requests", "workspace", settings.workspace_requests_per_minute, 60),
                Rate("uploads", "key", settings.key_uploads_per_hour, 3600),
                Rate("uploads", "workspace", settings.workspace_uploads_per_hour, 3600),
            )
            if rate.limit > 0
        ]
        self._held: dict[str, Held] = {}
        self._lock = threading.Lock()
        self._fetching = threading.Lock()

    @property
    def any(self) -> bool:
        return bool(self._rates)

    def in_hand(self, whose: Mapping[str, str], *, upload: bool) -> bool:
        """Whether `count` will need no database. whose: the id of the key and of the workspace."""
        now = time.time()
        for rate, subject in self._asked(whose, upload):
            held = self._held.get(subject)
            if held is None or held.window != int(now // rate.window_s):
                return False
            if held.left == 0 and held.used < rate.limit:
                return False
        return True

    def count(self, whose: Mapping[str, str], *, upload: bool) -> dict[str, str]:
        """Counts one request; the headers that say what is left (draft-ietf-httpapi-ratelimit-headers-10).

        Raises TooManyRequests.
        """
        now = time.time()
        asked = list(self._asked(whose, upload))
        policy = ", ".join(f'"{rate.name}";q={rate.limit};w={rate.window_s}' for rate, _ in asked)
        standings = []
        for rate, subject in asked:
            reset_s = rate.window_s - int(now % rate.window_s)
            left = self._spend(rate, subject, int(now // rate.window_s))
            standings.append(f'"{rate.name}";r={left or 0};t={reset_s}')
            if left is None:
                raise TooManyRequests(
                    f"{rate.limit} {rate.what} of a {rate.whose} are allowed in {rate.window_s} s, and they were made: go on "
                    f"in {reset_s} s",
                    reset_s,
                    {"RateLimit-Policy": policy, "RateLimit": standings[-1]},
                )
        return {"RateLimit-Policy": policy, "RateLimit": ", ".join(standings)} if asked else {}

    def _asked(self, whose: Mapping[str, str], upload: bool) -> Iterator[tuple[Rate, str]]:
        for rate in self._rates:
            if rate.whose in whose and (upload or rate.what == "requests"):
                yield rate, f"{whose[rate.whose]} {rate.what}"

    def _spend(self, rate: Rate, subject: str, window: int) -> int | None:
        """How many are left after this one; None where there was none."""
        left = self._from_hand(rate, subject, window)
        if left != MORE:
            return left
        with self._fetching:  # never while the lock is held: it is asked for where nothing may wait
            left = self._from_hand(rate, subject, window)
            while left == MORE:
                with self._database.unit_of_work() as session:
                    used, taken = _take(session, rate, subject, window)
                with self._lock:
                    if len(self._held) > _FORGET_ABOVE:
                        self._held.clear()
                    self._held[subject] = Held(window, used, taken)
                left = self._from_hand(rate, subject, window)
            return left

    def _from_hand(self, rate: Rate, subject: str, window: int) -> int | None:
        """As `_spend`; MORE where the database has to be asked."""
        with self._lock:
            held = self._held.get(subject)
            if held is None or held.window != window:
                return MORE
            if held.left == 0:
                return MORE if held.used < rate.limit else None
            held.left -= 1
            return rate.limit - held.used + held.left


def _take(session: Session, rate: Rate, subject: str, window: int) -> tuple[int, int]:
    """Takes a part of what is left in the window: (used by all from now on, taken now)."""
    insert = (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert
    session.execute(insert(RateCount).values(subject=subject, window=window, used=0).on_conflict_do_nothing())
    row = session.scalars(
        select(RateCount).where(RateCount.subject == subject).with_for_update(),
        execution_options={"populate_existing": True},
    ).one()
    if row.window < window:  # of a clock that is behind only the other's window counts
        row.window, row.used = window, 0
    left = rate.limit - row.used
    taken = min(left, max(1, min(rate.limit // PARTS, left // 4)))
    row.used += taken
    return row.used, taken
