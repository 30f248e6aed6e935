"""Connections and transactions: SQLite (WAL, every writer begins IMMEDIATE) or Postgres, behind one `Database`."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, create_engine, event, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.orm import Session

READ_ONLY = "detrank_read_only"
NO_TRANSACTION = "detrank_no_transaction"
# libpq waits for ever for a server that vanished without a word; and nobody may hold locks while frozen
PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
IDLE_IN_TRANSACTION = "60s"
BUSY_S = 30  # that SQLite waits for another writer


class Database:
    """An engine and its units of work. One per process; threads may share it."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self._reader = self.engine.execution_options(**{READ_ONLY: True})
        own = NO_TRANSACTION if self.engine.dialect.name == "sqlite" else "isolation_level"
        self._glancer = self.engine.execution_options(**{own: "AUTOCOMMIT"})

    @contextmanager
    def unit_of_work(self) -> Iterator[Session]:
        """One transaction that may write: committed at the end, rolled back by any exception. The only place that commits."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that only reads: never waits for a writer."""
        with Session(self._reader, expire_on_commit=False) as session:
            yield session

    def glance(self, statement: Select[Any], values: Mapping[str, Any]) -> Row[Any] | None:
        """The first row of one statement that only reads: outside any transaction, which would take longer than it."""
        with self._glancer.connect() as connection:
            return connection.execute(statement, values).first()

    def glances(self, statement: Select[Any], values: Mapping[str, Any]) -> Sequence[Row[Any]]:
        """Its rows, as `glance` has the first."""
        with self._glancer.connect() as connection:
            return connection.execute(statement, values).all()

    def dispose(self) -> None:
        self.engine.dispose()


def make_engine(url: str) -> Engine:
    """An engine for `url`; the folder of a SQLite file is made."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        engine = create_engine(
            parsed,
            pool_pre_ping=True,
            pool_size=10,
            max_overflow=20,
            pool_recycle=1800,
            connect_args=dict(PATIENCE),
        )
        event.listen(engine, "connect", _prepare_postgres)
        return engine
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        parsed, pool_size=10, max_overflow=20, connect_args={"timeout": BUSY_S, "check_same_thread": False}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_postgres(connection: DBAPIConnection, _record: object) -> None:
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION}'")
    connection.commit()


def _prepare_sqlite(connection: DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, see _begin_sqlite
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_S * 1000}", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    _keep_wal(cursor)
    cursor.close()


def _keep_wal(cursor: DBAPICursor) -> None:
    """Of a new file the switch to WAL fails at once where another process opens it too: the busy timeout is not for it."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    # A deferred BEGIN that later writes can fail at once with "database is locked"; IMMEDIATE waits its turn.
    options = connection.get_execution_options()
    if NO_TRANSACTION in options:
        return
    read_only = options.get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def database_now(session: Session) -> datetime:
    """The database's clock, aware, in UTC: leases never depend on the clocks of workers."""
    if session.get_bind().dialect.name == "sqlite":
        seconds = session.scalar(text("SELECT (julianday('now') - 2440587.5) * 86400.0"))
        return datetime.fromtimestamp(seconds, UTC)
    return session.scalars(select(func.clock_timestamp())).one().astimezone(UTC)
