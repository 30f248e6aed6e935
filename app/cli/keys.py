"""`detrank keys ...`: works on the database itself, for whoever runs the service."""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from app.cli.session import as_json, note, out, say
from app.cli.tables import table_of
from app.settings import get_settings

commands = typer.Typer(help="API keys of the configured database (DETRANK_AUTH=keys asks for them).", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print as JSON")]


@commands.command()
def create(
    name: Annotated[str, typer.Argument(help="whose key it is")],
    workspace: Annotated[str, typer.Option(help="made where it does not exist; keys of one share everything")] = "default",
    json: Json = False,
) -> None:
    """Make a key. It is shown this once and never again."""
    from app.services import workspaces  # noqa: PLC0415

    with _session() as session:
        # the workspace of the days without keys goes on under its first key
        workspaces.ensure_default(session)
        record, key = workspaces.create_key(session, workspaces.ensure(session, workspace).id, name)
        document = _document(record) | {"key": key}
    if json:
        as_json(document)
    else:
        note(f"{record.id} for {name} in workspace {workspace}; keep it, only its hash is stored:")
        say(key)


@commands.command("list")
def list_(json: Json = False) -> None:
    """Every key: whose, since when, whether it still opens."""
    from app.services import workspaces  # noqa: PLC0415

    with _session() as session:
        documents = [_document(record) for record in workspaces.list_keys(session)]
    if json:
        as_json({"items": documents})
        return
    columns = ["id", "name", "prefix", "workspace_id", "created_at", "last_used_at", "revoked_at"]
    out.print(table_of("", columns, [[document[column] for column in columns] for document in documents]))


@commands.command()
def revoke(key: Annotated[str, typer.Argument(metavar="ID", help="id of the key, not the key itself")], json: Json = False) -> None:
    """Close a key at once."""
    from app.services import workspaces  # noqa: PLC0415

    with _session() as session:
        document = _document(workspaces.revoke_key(session, key))
    if json:
        as_json(document)
    else:
        say(f"{document['id']} ({document['name']}) opens nothing any more")


@contextlib.contextmanager
def _session() -> Iterator[Any]:
    """One transaction on the configured database, brought to this version first."""
    from app.db.engine import Database  # noqa: PLC0415
    from app.db.migrate import upgrade  # noqa: PLC0415

    settings = get_settings()
    if settings.embedded:
        upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    try:
        with database.unit_of_work() as session:
            yield session
    finally:
        database.dispose()


def _document(record: Any) -> dict[str, Any]:
    times = {name: getattr(record, name) for name in ("created_at", "last_used_at", "revoked_at")}
    named = {name: getattr(record, name) for name in ("id", "name", "prefix", "workspace_id")}
    return named | {name: value and value.isoformat() for name, value in times.items()}
