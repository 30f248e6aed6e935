"""`detrank jobs ...`"""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from app.cli.commands import work
from app.cli.session import out, say
from app.cli.show.tables import jobs
from app.cli.waiting.bars import wait_for
from app.queue.states import JobKind

group = typer.Typer(no_args_is_help=True)

KINDS = ", ".join(list(JobKind)[:-1]) + f" or {list(JobKind)[-1]}"


@dataclass(frozen=True, kw_only=True)
class JobSelection(work.Selection):
    kind: Annotated[str | None, typer.Option(help=KINDS)] = None
    resource_id: Annotated[
        str | None, typer.Option("--of", help="id of the dataset, checkpoint, ranking, ... they work for")
    ] = None


def show_job(record: dict[str, Any]) -> None:
    out.print(jobs([record]))
    if error := record.get("error"):
        say(f"{error.get('title', 'failed')}: {error.get('detail', '')}")


work.add_commands(
    group,
    work.WorkGroup(
        name="job",
        path="jobs",
        table=jobs,
        show=show_job,
        wait=lambda client, record: wait_for(client, "jobs", record),
        selection=JobSelection,
        help=work.HelpTexts(
            list="Jobs, newest first.",
            show="One job, with the reason if it failed.",
            cancel="Ask a job to stop; a finished one stays as it is.",
            retry="Put a failed or cancelled job back into the queue.",
        ),
    ),
)
