"""`detrank audit`"""

from dataclasses import dataclass
from typing import Annotated

import typer

from app.cli.options import Json, Limit, spread
from app.cli.session import as_json, connected, out
from app.cli.show.tables import table_of

COLUMNS = ["created_at", "workspace_id", "key_id", "action", "resource", "request_id"]


@dataclass(frozen=True, kw_only=True)
class AuditSelection:
    key_id: Annotated[str | None, typer.Option("--by", help="id of a key")] = None
    action: Annotated[str | None, typer.Option(help="such as create_ranking")] = None
    resource: Annotated[str | None, typer.Option("--of", help="path, such as /v1/rankings/rk_...")] = None
    workspace_id: Annotated[str | None, typer.Option(help="id of a workspace")] = None


@spread
def audit(ctx: typer.Context, selection: AuditSelection, limit: Limit = 20, json: Json = False) -> None:
    """Who changed what, newest first: for whoever runs the service."""
    with connected(ctx) as client:
        page = client.audit.page(**vars(selection), limit=limit)
    if json:
        as_json(page)
    else:
        out.print(table_of("", COLUMNS, [[entry[column] for column in COLUMNS] for entry in page["items"]]))
