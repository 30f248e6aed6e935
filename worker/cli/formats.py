"""`detrank checkpoints formats`: what is understood."""

import json
from importlib import resources

import typer
from rich.table import Table
from rich.text import Text

from worker.cli.options import FormatsOptions
from worker.cli.output import out


def run(asked: FormatsOptions) -> None:
    known = json.loads(resources.files("app").joinpath("catalogue.json").read_text(encoding="utf-8"))[
        "formats"
    ]["checkpoints"]
    if asked.json:
        typer.echo(json.dumps({"items": known}, indent=2))
        return
    table = Table("format", "what it is", header_style="bold")
    for one in known:
        table.add_row(one["name"], Text(str(one.get("title") or one.get("summary") or "")))
    out.print(table)
