"""Records of who may do what, and of who did it."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, Index, String, true
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Id, Sha256


class Scope(StrEnum):
    """What a key may do."""

    METRICS = "metrics"  # read /metrics where that asks for a key
    READ = "read"
    WRITE = "write"  # read as well
    ADMIN = "admin"  # all of it; keys, quotas and the audit log of every workspace

    def allows(self, asked: "Scope") -> bool:
        return asked in _ALLOWED[self]


_ALLOWED = {
    Scope.METRICS: {Scope.METRICS},
    Scope.READ: {Scope.READ},
    Scope.WRITE: {Scope.READ, Scope.WRITE},
    Scope.ADMIN: set(Scope),
}


class Workspace(Base):
    """What keys open. A quota that is None is that of the settings; 0: none."""

    __tablename__ = "workspace"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[datetime]
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    max_queued_jobs: Mapped[int | None]
    priority: Mapped[int] = mapped_column(
        default=0, server_default="0"
    )  # its jobs go before those of a smaller one
    # whether its own fine-tunings sharpen what is predicted of its candidates
    learns: Mapped[bool] = mapped_column(default=True, server_default=true())


class RateCount(Base):
    """How often one subject did one thing in the latest window that anyone asked of."""

    __tablename__ = "rate_count"
    subject: Mapped[str] = mapped_column(String(100), primary_key=True)
    window: Mapped[int]  # seconds since 1970 over the window's length
    used: Mapped[int]


class ApiKey(Base):
    """Only the hash is kept; `prefix` lets a person tell keys apart."""

    __tablename__ = "api_key"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    name: Mapped[str] = mapped_column(String(200))
    prefix: Mapped[str] = mapped_column(String(20))
    hash: Mapped[str] = mapped_column(Sha256, unique=True)
    scope: Mapped[str] = mapped_column(String(16), server_default=Scope.WRITE.value)
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditEntry(Base):
    """Who changed what, written in the transaction of the change itself."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("ix_audit_listing", "workspace_id", "id"),
        # of all workspaces
        Index("ix_audit_by_key_id", "key_id", "id"),
        Index("ix_audit_by_action", "action", "id"),
        Index("ix_audit_by_resource", "resource", "id"),
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))  # whose key it was
    key_id: Mapped[str | None] = mapped_column(Id, index=True)  # None: no key was asked for
    action: Mapped[str] = mapped_column(String(60))  # the operation, as OpenAPI names it
    resource: Mapped[str] = mapped_column(String(200))  # path of what was made, changed or deleted
    request_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(index=True)
