"""`detrank webhooks ...`"""

from typing import Annotated, Any

import typer

from app.cli.commands.work import add_delete
from app.cli.options import Json, Limit, split
from app.cli.session import as_json, connected, note, out, say
from app.cli.show.tables import table_of

group = typer.Typer(no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="id of the webhook")]
Events = Annotated[
    str | None,
    typer.Option(
        help="with commas: dataset, checkpoint, ranking, verification, search, study, pretraining, pseudo-labelling, job (every job); "
        "all but job where not given"
    ),
]


@group.command()
def create(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(help="where to send")],
    events: Events = None,
    description: Annotated[str | None, typer.Option(help="for people")] = None,
    json: Json = False,
) -> None:
    """Have an address told when something ends. The secret that signs is shown this once."""
    with connected(ctx) as client:
        made = client.webhooks.create(url, events=split(events), description=description)
    _secret(made, json)


@group.command("list")
def list_(ctx: typer.Context, limit: Limit = 20, json: Json = False) -> None:
    """Webhooks, newest first, and whether they take what they are sent."""
    with connected(ctx) as client:
        page = client.webhooks.page(limit=limit)
    if json:
        as_json(page)
        return
    rows = [[one["id"], one["url"], ", ".join(one["events"]), _health(one)] for one in page["items"]]
    out.print(table_of("", ["id", "url", "events", "health"], rows))


@group.command()
def deliveries(ctx: typer.Context, id: Id, limit: Limit = 20, json: Json = False) -> None:
    """What a webhook was and will be told, newest first."""
    with connected(ctx) as client:
        page = client.get(f"/v1/webhooks/{id}/deliveries", limit=limit)
    if json:
        as_json(page)
        return
    columns = ["id", "type", "state", "attempts", "answer", "next attempt"]
    rows = [
        [
            one["id"],
            one["type"],
            one["state"],
            one["attempts"],
            one["status"] or one["answer"],
            one["next_attempt_at"],
        ]
        for one in page["items"]
    ]
    out.print(table_of("", columns, rows))


@group.command()
def resend(
    ctx: typer.Context,
    id: Id,
    delivery: Annotated[str, typer.Argument(help="id of the delivery")],
    json: Json = False,
) -> None:
    """Send a delivery again."""
    with connected(ctx) as client:
        made = client.webhooks.resend(id, delivery)
    as_json(made) if json else say(f"{made['id']} ({made['type']}) is sent again")


@group.command("test")
def send_test_event(ctx: typer.Context, id: Id, json: Json = False) -> None:
    """Send an event that tells of nothing."""
    with connected(ctx) as client:
        made = client.webhooks.test(id)
    as_json(made) if json else say(f"{made['id']} is on its way; `detrank webhooks deliveries {id}` shows it")


@group.command()
def enable(ctx: typer.Context, id: Id) -> None:
    """Go on sending to a webhook that was disabled."""
    with connected(ctx) as client:
        client.webhooks.change(id, enabled=True)
    say(f"{id} is told what waits, and what comes")


@group.command()
def disable(ctx: typer.Context, id: Id) -> None:
    """Send nothing for the time being."""
    with connected(ctx) as client:
        client.webhooks.change(id, enabled=False)
    say(f"{id} is told nothing until it is enabled")


@group.command()
def rotate(ctx: typer.Context, id: Id, json: Json = False) -> None:
    """Give a webhook a new secret; the old one signs as well for a day."""
    with connected(ctx) as client:
        made = client.webhooks.rotate(id)
    _secret(made, json)


add_delete(group, "webhook", "webhooks", "Delete a webhook with its deliveries.")


def _secret(made: dict[str, Any], json: bool) -> None:
    if json:
        as_json(made)
    else:
        note(f"{made['id']} for {made['url']}; keep the secret, it is shown this once:")
        say(made["secret"])


def _health(webhook: dict[str, Any]) -> str:
    if not webhook["enabled"]:
        return f"disabled: {webhook['disabled_why']}"
    return f"failing since {webhook['failing_since']}" if webhook["failing_since"] else "well"
