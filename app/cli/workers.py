"""`detrank workers`"""

from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.session import as_json, connected, out
from app.cli.tables import table_of

Json = Annotated[bool, typer.Option("--json", help="print the service's own document")]


def workers(ctx: typer.Context, json: Json = False) -> None:
    """Worker processes: their queues, device, memory, and the detectors they keep loaded."""
    with connected(ctx) as client:
        found = client.workers()
    if json:
        as_json({"items": found})
    else:
        out.print(table(found))


def table(records: list[dict[str, Any]]) -> Table:
    rows = []
    for record in records:
        details = record["details"]
        device = " ".join(filter(None, [details.get("device"), details.get("device_name")]))
        free, total = (_gigabytes(details.get(name)) for name in ("memory_free_bytes", "memory_total_bytes"))
        held = ", ".join(model["architecture"].rpartition("/")[2] for model in details.get("models") or [])
        rows.append(
            [
                record["name"], "alive" if record["alive"] else "silent", ", ".join(record["queues"]),
                device or details.get("problem"), f"{free} of {total} GB", held,
            ]
        )  # fmt: skip
    return table_of("", ["worker", "state", "queues", "device", "memory free", "keeps loaded"], rows)


def _gigabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e9:.1f}"
