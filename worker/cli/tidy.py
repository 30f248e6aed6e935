"""`detrank tidy`: one round of tidying, and what it freed."""

import json
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import typer
from rich.table import Table

from app.db.engine import Database
from app.settings import get_settings
from app.storage.blobs import open_store
from worker.cli.output import out
from worker.tidy import tidy


def run(asked: Any) -> None:
    """`asked`: the TidyOptions of the command."""
    settings = get_settings()
    database = Database(settings.resolved_database_url)
    try:
        gone = tidy(
            database,
            settings,
            open_store(settings),
            dry_run=asked.dry_run,
            older_than=timedelta(hours=asked.hours),
        )
    finally:
        database.dispose()
    if asked.json:
        said = {"dry_run": asked.dry_run, "gone": {kind: asdict(one) for kind, one in gone.items()}}
        typer.echo(json.dumps(said, indent=2))
        return
    table = Table("kind", "would go" if asked.dry_run else "gone", "bytes", header_style="bold")
    for kind, one in gone.items():
        table.add_row(kind, f"{one.count:,}", f"{one.size_bytes:,}" if one.size_bytes else "")
    out.print(table)
