"""`detrank datasets ...`"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.commands import naming, work
from app.cli.options import Json, Limit, Priority, spread
from app.cli.session import BadOptions, Failed, as_json, connected, note, out, say
from app.cli.show import datasets as show_dataset
from app.cli.show.tables import datasets as dataset_table
from app.cli.waiting.bars import sending, wait_for
from detrank import Client, ProblemError

Record = dict[str, Any]
group = typer.Typer(no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How an archive is read. Fields are named as in the request."""

    name: Annotated[str | None, typer.Option(help="default: the file's name")] = None
    format: Annotated[
        str | None, typer.Option(help="coco, voc, yolo, ...; recognised by itself where not given")
    ] = None
    seed: Annotated[int | None, typer.Option(help="of the splits, where the archive has none")] = None
    val_fraction: Annotated[
        float | None, typer.Option(help="of the images, where the archive has no splits; 0.2 where not given")
    ] = None
    test_fraction: Annotated[
        float | None, typer.Option(help="of the images, where the archive has no splits; 0 where not given")
    ] = None
    unlabelled: Annotated[
        str | None,
        typer.Option(
            help="what a picture without a label counts as in a set with labels: leave_out or background"
        ),
    ] = None
    priority: Priority = 0


@group.command()
@spread
def add(
    ctx: typer.Context,
    reading: ReadingOptions,
    path: Annotated[str | None, typer.Argument(help="zip, tar, tar.gz, or a folder")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="instead: where the pictures stay: a folder of the service's machine, s3://bucket/prefix or "
            "hf://datasets/org/name@revision"
        ),
    ] = None,
    wait: Annotated[bool, typer.Option(help="until it is checked and ready")] = True,
    json: Json = False,
) -> None:
    """Send a dataset and have it checked, or name a source to be read where it is."""
    if (path is None) == (source is None):
        raise BadOptions("give a path to send, or --source to leave the pictures where they are")
    what = path or staying(str(source))
    with connected(ctx, what) as client:
        record = send(client, what, **asdict(reading))
        if wait:
            record = wait_for(client, "datasets", record)
        if json:
            as_json(record)
        else:
            describe(client, record)
        fail_if_invalid(record)


@group.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="processing, ready or invalid")] = None,
    limit: Limit = 20,
    json: Json = False,
) -> None:
    """The datasets of the service, newest first."""
    with connected(ctx) as client:
        page = client.datasets.page(state=state, limit=limit)
        if json:
            as_json(page)
        else:
            out.print(dataset_table(page["items"]))


@group.command()
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


work.add_delete(group, "dataset", "datasets", "Delete a dataset that nothing uses.")


def staying(source: str) -> str:
    """The source as a URL; a path is a folder of this machine."""
    return source if "://" in source else Path(source).expanduser().resolve().as_uri()


def send(client: Client, path: str, **fields: Any) -> Record:
    """Sends an archive or a folder; of a source, which has `://`, only the name."""
    if "://" in path:
        return client.datasets.add(path, **fields)
    with sending(Path(path).name) as on_sent:
        return client.datasets.add(path, on_sent=on_sent, **fields)


def find(client: Client, word: str) -> Record:
    """By id, or the newest by name. Raises Failed, naming what there is."""
    return naming.find(client.datasets, "dataset", "ds_", word)


def describe(client: Client, record: Record) -> None:
    say(f"{record['id']}  {record['name']}  {record['state']}")
    for line in show_dataset.headline(record):
        say(line)
    if record.get("summary"):
        out.print(show_dataset.categories(record))
    if record["state"] == "processing":
        return
    try:
        report = client.datasets.report(record["id"])
    except ProblemError:
        # what is refused before anything is read has none
        return
    if table := show_dataset.found(report):
        out.print(table)
        say(show_dataset.lost(report))
        note(f"every one with file and reason: GET /v1/datasets/{record['id']}/report")


def tell_how_it_was_read(client: Client, record: Record) -> None:
    """On standard error, for commands that are about something else."""
    for line in show_dataset.headline(record):
        note(line)
    report = client.datasets.report(record["id"])
    if report.get("counts"):
        note(f"{show_dataset.lost(report)}; what and why: detrank datasets show {record['id']}")


def fail_if_invalid(record: Record) -> None:
    if record["state"] == "invalid":
        raise Failed(
            f"{record['name']} cannot be used: {(record.get('error') or {}).get('detail', 'no reason given')}"
        )
