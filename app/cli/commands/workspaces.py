"""`detrank workspaces ...`"""

from typing import Annotated, Any

import typer

from app.cli.options import Json
from app.cli.session import as_json, connected, out, say
from app.cli.show.tables import table_of

group = typer.Typer(no_args_is_help=True)

COLUMNS = ["id", "name", "priority", "bytes", "of", "queued jobs", "of"]


@group.command()
def show(ctx: typer.Context, json: Json = False) -> None:
    """What your workspace stores and has queued, what it may, and what your key may."""
    with connected(ctx) as client:
        own = client.workspaces.own()
    if json:
        as_json(own)
        return
    out.print(table_of("", COLUMNS, [_row(own)]))
    say(f"scope of the key: {own['scope']}")


@group.command()
def learn(
    ctx: typer.Context,
    own: Annotated[bool, typer.Option("--own/--no-own", help="whether your own verifications count")] = True,
    json: Json = False,
) -> None:
    """Whether your verifications sharpen the mAP that is predicted in your rankings."""
    with connected(ctx) as client:
        changed = client.workspaces.change(learns=own)
    if json:
        as_json(changed)
    else:
        say(f"own verifications {'count' if changed['learns'] else 'do not count'} for what is predicted")


@group.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """All workspaces: for whoever runs the service."""
    with connected(ctx) as client:
        items = list(client.workspaces.list())
    if json:
        as_json({"items": items})
    else:
        out.print(table_of("", COLUMNS, [_row(one) for one in items]))


@group.command("set")
def set_(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="id of the workspace")],
    max_bytes: Annotated[int | None, typer.Option(min=0, help="that it may store; 0: any number")] = None,
    max_queued_jobs: Annotated[int | None, typer.Option(min=0, help="0: any number")] = None,
    priority: Annotated[
        int | None, typer.Option(min=-10, max=10, help="jobs of a larger one go before all others")
    ] = None,
    json: Json = False,
) -> None:
    """Give a workspace quotas and a priority of its own: for whoever runs the service."""
    fields = {"max_bytes": max_bytes, "max_queued_jobs": max_queued_jobs, "priority": priority}
    with connected(ctx) as client:
        changed = client.workspaces.set(id, **fields)
    if json:
        as_json(changed)
    else:
        out.print(table_of("", COLUMNS, [_row(changed)]))


def _row(one: dict[str, Any]) -> list[object]:
    shares = [one[name][part] for name in ("bytes", "queued_jobs") for part in ("used", "limit")]
    return [
        one["id"],
        one["name"],
        one["priority"],
        *("any" if share is None else f"{share:,}" for share in shares),
    ]
