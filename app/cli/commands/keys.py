"""`detrank keys ...`: works on the database itself, for whoever runs the service."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from app.cli.session import as_json, note, out, say
from app.cli.show.tables import table_of
from app.db.access_tables import ApiKey, Scope
from app.db.engine import Database
from app.db.migrate import upgrade
from app.services import audit, workspaces
from app.settings import get_settings

group = typer.Typer(no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print as JSON")]


@group.command()
def create(
    name: Annotated[str, typer.Argument(help="whose key it is")],
    workspace: Annotated[
        str, typer.Option(help="made where it does not exist; keys of one share everything")
    ] = "default",
    scope: Annotated[
        Scope,
        typer.Option(
            help="read; write: also changes what is in its workspace; admin: also runs the service; metrics: reads /metrics"
        ),
    ] = Scope.WRITE,
    days: Annotated[float | None, typer.Option(min=0, help="until it expires; never where not given")] = None,
    json: Json = False,
) -> None:
    """Make a key. It is shown this once and never again."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with _session() as session:
        # the workspace of the days without keys goes on under its first key
        workspaces.ensure_default(session)
        place = workspaces.ensure(session, workspace).id
        record, key = workspaces.create_key(session, place, name, scope=scope, expires_at=expires_at)
        _noted(session, "create_key", record)
        document = _document(record) | {"key": key}
    if json:
        as_json(document)
    else:
        note(f"{record.id} for {name} in workspace {workspace}; keep it, only its hash is stored:")
        say(key)


@group.command()
def rotate(
    key: Annotated[str, typer.Argument(metavar="ID", help="id of the key, not the key itself")],
    grace_hours: Annotated[float, typer.Option(min=0, help="for so long the old key goes on opening")] = 24.0,
    json: Json = False,
) -> None:
    """Make a key in place of one, which goes on opening for a while."""
    with _session() as session:
        record, new = workspaces.rotate_key(session, key, timedelta(hours=grace_hours))
        _noted(session, "rotate_key", record)
        document = _document(record) | {"key": new}
    if json:
        as_json(document)
    else:
        note(f"{record.id} in place of {key}, which opens for {grace_hours:g} more hours at most:")
        say(new)


@group.command("list")
def list_(json: Json = False) -> None:
    """Every key: whose, since when, whether it still opens."""
    with _session() as session:
        documents = [_document(record) for record in workspaces.list_keys(session)]
    if json:
        as_json({"items": documents})
        return
    columns = ["id", "name", "scope", "prefix", "workspace_id"]
    columns += ["created_at", "last_used_at", "expires_at", "revoked_at"]
    out.print(table_of("", columns, [[document[column] for column in columns] for document in documents]))


@group.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="id of the key, not the key itself")],
    json: Json = False,
) -> None:
    """Close a key at once."""
    with _session() as session:
        record = workspaces.revoke_key(session, key)
        _noted(session, "revoke_key", record)
        document = _document(record)
    if json:
        as_json(document)
    else:
        say(f"{document['id']} ({document['name']}) opens nothing any more")


@contextlib.contextmanager
def _session() -> Iterator[Session]:
    """One transaction on the configured database, brought to this version first."""
    settings = get_settings()
    if settings.embedded:
        upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    try:
        with database.unit_of_work() as session:
            yield session
    finally:
        database.dispose()


def _noted(session: Session, action: str, record: ApiKey) -> None:
    deed = audit.Deed(record.workspace_id, None, action, f"/v1/keys/{record.id}", None)
    session.add(audit.entry_of(deed))


def _document(record: ApiKey) -> dict[str, Any]:
    moments = ("created_at", "last_used_at", "expires_at", "revoked_at")
    times = {name: getattr(record, name) for name in moments}
    named = {name: getattr(record, name) for name in ("id", "name", "scope", "prefix", "workspace_id")}
    return named | {name: value and value.isoformat() for name, value in times.items()}
