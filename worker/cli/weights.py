"""`detrank checkpoints weights`: what can be added by name."""

import json

import typer
from rich.table import Table

from models_store.registry import architectures, backbones
from worker.cli.options import WeightsOptions
from worker.cli.output import out


def run(asked: WeightsOptions) -> None:
    detectors = [row for architecture in architectures() for row in architecture["weights"]]
    found = [row for row in detectors + backbones() if asked.search.lower() in row["uri"].lower()]
    if asked.json:
        typer.echo(json.dumps({"items": found}, indent=2))
        return
    table = Table(header_style="bold")
    table.add_column("uri", overflow="fold", min_width=40)  # copied whole; licences are in the JSON
    for figure in ("parameters", "COCO mAP", "top-1"):
        table.add_column(figure, justify="right", no_wrap=True)
    for row in found:
        figures = (row["parameters"], row["coco_box_map"], row["imagenet_top1"])
        table.add_row(row["uri"], *("–" if each is None else f"{each:,}" for each in figures))
    out.print(table)
