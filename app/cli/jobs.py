"""`detrank jobs ...`"""

from typing import Annotated, Any

import typer

from app.cli.session import as_json, connected, out, say
from app.cli.tables import jobs as job_table

commands = typer.Typer(help="Units of work: what runs, what waits, what failed.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print the service's own document")]
Id = Annotated[str, typer.Argument(metavar="JOB", help="id of the job")]


@commands.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="queued, running, cancelling, succeeded, failed or cancelled")] = None,
    kind: Annotated[str | None, typer.Option(help="ingest, inspect, score, rank, verify, search or study")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    json: Json = False,
) -> None:
    """Jobs, newest first."""
    with connected(ctx) as client:
        page = client.jobs.page(state=state, kind=kind, limit=limit)
        if json:
            as_json(page)
        else:
            out.print(job_table(page["items"]))


@commands.command()
def show(ctx: typer.Context, job: Id, json: Json = False) -> None:
    """One job, with the reason if it failed."""
    with connected(ctx) as client:
        _answer(client.jobs.get(job), json)


@commands.command()
def cancel(ctx: typer.Context, job: Id, json: Json = False) -> None:
    """Ask a job to stop; a finished one stays as it is."""
    with connected(ctx) as client:
        _answer(client.jobs.cancel(job), json)


@commands.command()
def retry(ctx: typer.Context, job: Id, json: Json = False) -> None:
    """Put a failed or cancelled job back into the queue."""
    with connected(ctx) as client:
        _answer(client.jobs.retry(job), json)


def _answer(record: dict[str, Any], json: bool) -> None:
    if json:
        as_json(record)
        return
    out.print(job_table([record]))
    if error := record.get("error"):
        say(f"{error.get('title', 'failed')}: {error.get('detail', '')}")
