"""`detrank tidy`: remove now what workers remove in time, or say what that would be."""

from dataclasses import dataclass
from typing import Annotated

import typer

from app.cli.later import computed


@dataclass(frozen=True)
class TidyOptions:
    """Remove what has expired and what nothing refers to, as workers do every 15 minutes; --dry-run only says what."""

    dry_run: Annotated[bool, typer.Option("--dry-run", help="change nothing, say what would go")] = False
    hours: Annotated[
        float,
        typer.Option(
            "--older-than-hours",
            min=0,
            help="of files; below 24 only while no API and no worker runs, for they may be at work on younger ones",
        ),
    ] = 24.0
    json: Annotated[bool, typer.Option("--json", help="print as JSON")] = False


tidy = computed(TidyOptions, "worker.cli.tidy:run")
