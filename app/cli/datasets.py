"""`detrank datasets ...`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.progress import sending, wait_for
from app.cli.session import Failed, as_json, connected, note, out, say
from app.cli.tables import datasets as dataset_table
from app.cli.tables import table_of
from app.client import Client

Record = dict[str, Any]
commands = typer.Typer(help="Labelled images to choose a detector for.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print the service's own document")]


@commands.command()
def add(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="zip, tar, tar.gz, or a folder")],
    name: Annotated[str | None, typer.Option(help="default: the file's name")] = None,
    format: Annotated[str | None, typer.Option(help="coco, voc, yolo, ...; recognised by itself where not given")] = None,
    seed: Annotated[int | None, typer.Option(help="of the splits, where the archive has none")] = None,
    wait: Annotated[bool, typer.Option(help="until it is checked and ready")] = True,
    json: Json = False,
) -> None:
    """Send a dataset and have it checked."""
    with connected(ctx) as client:
        record = send(client, path, name=name, format=format, seed=seed)
        if wait:
            record = wait_for(client, "datasets", record)
        if json:
            as_json(record)
        else:
            describe(client, record)
        fail_if_invalid(record)


@commands.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="processing, ready or invalid")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    json: Json = False,
) -> None:
    """The datasets of the service, newest first."""
    with connected(ctx) as client:
        page = client.datasets.page(state=state, limit=limit)
        if json:
            as_json(page)
        else:
            out.print(dataset_table(page["items"]))


@commands.command()
def show(
    ctx: typer.Context, dataset: Annotated[str, typer.Argument(help="id or name")], json: Json = False
) -> None:
    """One dataset: categories, splits, and what the check dropped or repaired."""
    with connected(ctx) as client:
        record = find(client, dataset)
        if json:
            as_json(record)
        else:
            describe(client, record)


def send(client: Client, path: Path, **fields: Any) -> Record:
    with sending(path.name) as on_sent:
        return client.datasets.add(path, on_sent=on_sent, **fields)


def find(client: Client, word: str) -> Record:
    """By id, or the newest by name. Raises Failed, naming what there is."""
    if word.startswith("ds_"):
        return client.datasets.get(word)
    names = []
    for record in client.datasets.list(name=word):
        if record["name"] == word:
            return client.datasets.get(record["id"])
        names.append(record["name"])
    raise Failed(f"no dataset is called {word!r} and no file is there; known: {', '.join(names[:10]) or 'none'}")


def describe(client: Client, record: Record) -> None:
    say(f"{record['id']}  {record['name']}  {record['state']}")
    summary = record.get("summary") or {}
    if not summary:
        return
    splits = ", ".join(f"{name} {s['images']} images {s['annotations']} objects" for name, s in summary.get("splits", {}).items())
    say(f"{record.get('format')}, {record.get('supervision')}: {summary['images']} images, {summary['annotations']} objects ({splits})")
    rows = [[c["name"], c["annotations"], c["images"]] for c in summary.get("categories", [])]
    out.print(table_of("", ["category", "objects", "images"], rows, numbers=frozenset({"objects", "images"})))
    report = client.datasets.report(record["id"])
    if counts := report.get("counts"):
        rows = [[code, count] for code, count in counts.items()]
        out.print(table_of("found while checking", ["what", "count"], rows, numbers=frozenset({"count"})))
        say(f"dropped {report.get('dropped', 0)}, repaired {report.get('repaired', 0)}")
        note(f"every one with file and reason: GET /v1/datasets/{record['id']}/report")


def fail_if_invalid(record: Record) -> None:
    if record["state"] == "invalid":
        raise Failed(f"{record['name']} cannot be used: {(record.get('error') or {}).get('detail', 'no reason given')}")
