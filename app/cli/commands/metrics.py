"""`detrank metrics list`; `detrank metrics score` belongs to the worker."""

import json as json_module
from importlib import resources
from typing import Annotated

import typer

from app.cli.session import Where, as_json, connected, out
from app.cli.show.tables import table_of

group = typer.Typer(no_args_is_help=True)


@group.command("list")
def list_(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="print the service's own document")] = False,
) -> None:
    """Every metric: what it needs, what it is called, where it was published."""
    where = ctx.find_object(Where)
    if where is not None and where.url is not None:
        with connected(ctx) as client:
            items = client.catalogue("metrics")
    else:
        items = json_module.loads(
            resources.files("app").joinpath("catalogue.json").read_text(encoding="utf-8")
        )["metrics"]
    if json:
        as_json({"items": items})
        return
    rows = [
        [
            m["name"],
            m.get("title"),
            ", ".join(m.get("needs") or []),
            m.get("rows"),
            "yes" if m.get("default") else "",
            "yes" if m.get("pool_relative") else "",
            m.get("paper"),
        ]
        for m in items
    ]
    out.print(table_of("", ["metric", "title", "needs", "rows", "default", "of the pool", "paper"], rows))
