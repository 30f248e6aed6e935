"""`detrank workers`"""

from collections.abc import Sequence
from typing import Any

import typer
from rich.table import Table

from app.cli.options import Json
from app.cli.session import as_json, connected, out
from app.cli.show.tables import table_of


def workers(ctx: typer.Context, json: Json = False) -> None:
    """Worker processes: their queues, device, memory, and the detectors they keep loaded."""
    with connected(ctx) as client:
        found = client.workers()
    if json:
        as_json({"items": found})
    else:
        out.print(table(found))


def table(records: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for record in records:
        details = record["details"]
        device = " ".join(filter(None, [details.get("device"), details.get("device_name")]))
        free, total = (_gigabytes(details.get(name)) for name in ("memory_free_bytes", "memory_total_bytes"))
        held = ", ".join(model["architecture"].rpartition("/")[2] for model in details.get("models") or [])
        rows.append(
            [
                record["name"],
                "alive" if record["alive"] else "silent",
                ", ".join(record["queues"]),
                device or details.get("problem"),
                f"{free} of {total} GB",
                held,
                ", ".join(record["jobs"]),
            ]
        )
    return table_of(
        "", ["worker", "state", "queues", "device", "memory free", "keeps loaded", "works on"], rows
    )


def _gigabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e9:.1f}"
