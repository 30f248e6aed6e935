"""Who changed what: an entry for each request that changes something, in the transaction of the change itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from app.db.access_tables import AuditEntry
from app.db.engine import Database
from app.ids import new_id
from app.services.listing import Listing

LISTING = Listing(AuditEntry, "audit")
_ENTRY = "audit"


@dataclass(frozen=True)
class Deed:
    """What a request is about to do, and who sent it."""

    workspace_id: str
    key_id: str | None
    action: str
    resource: str
    request_id: str | None


class Audited(Database):
    """The database of one request: with its first transaction that is committed goes the entry of its deed."""

    def __init__(self, database: Database, deed: Deed) -> None:
        self.engine, self._reader = database.engine, database._reader
        self._deed: Deed | None = deed

    @contextmanager
    def unit_of_work(self) -> Iterator[Session]:
        with super().unit_of_work() as session:
            if self._deed is not None:
                session.info[_ENTRY] = entry_of(self._deed)
            yield session
            if (entry := session.info.pop(_ENTRY, None)) is not None:
                session.add(entry)
        self._deed = None


def entry_of(deed: Deed) -> AuditEntry:
    fields = asdict(deed) | {"resource": deed.resource[:200]}
    return AuditEntry(id=new_id("audit"), created_at=datetime.now(UTC), **fields)


def about(session: Session, resource: str) -> None:
    """Names what the request of this transaction made, which its own path does not."""
    if (entry := session.info.get(_ENTRY)) is not None:
        entry.resource = resource[:200]


def nothing_done(session: Session) -> None:
    """The request of this transaction repeats one that was answered."""
    session.info.pop(_ENTRY, None)
