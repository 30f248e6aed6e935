"""Documents of the service as tables for a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

Record = dict[str, Any]
STATE_STYLES = {
    "ready": "green",
    "succeeded": "green",
    "running": "cyan",
    "processing": "cyan",
    "failed": "red",
    "invalid": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
}


def table_of(
    title: str,
    columns: list[str],
    rows: Sequence[Sequence[object]],
    *,
    numbers: frozenset[str] = frozenset(),
    whole: frozenset[str] = frozenset({"id"}),
) -> Table:
    """Plain cells; whatever a user wrote is shown, never read as markup. Columns named in `whole`
    or `numbers` are not folded."""
    table = Table(title=escape(title) if title else None, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in numbers else "left",
            overflow="fold",
            no_wrap=column in whole | numbers,
        )
    for row in rows:
        table.add_row(
            *(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row)
        )
    return table


def state(value: str | None) -> Text:
    return Text(value or "", style=STATE_STYLES.get(value or "", ""))


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"


def millions(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:.1f} M"


def bytes_of(value: int | None) -> str:
    return "–" if value is None else f"{value / 2**20:.0f} MiB"


def datasets(records: list[Record]) -> Table:
    rows = [
        [
            r["id"],
            r["name"],
            state(r["state"]),
            r.get("format"),
            _summary(r, "images"),
            _summary(r, "annotations"),
            r["created_at"],
        ]
        for r in records
    ]
    return table_of(
        "",
        ["id", "name", "state", "format", "images", "objects", "created"],
        rows,
        numbers=frozenset({"images", "objects"}),
    )


def checkpoints(records: list[Record]) -> Table:
    rows = [
        [
            r["id"],
            r["name"],
            state(r["state"]),
            r.get("kind"),
            r.get("architecture"),
            millions(r.get("parameters")),
            r.get("licence"),
        ]
        for r in records
    ]
    return table_of(
        "",
        ["id", "name", "state", "kind", "architecture", "parameters", "licence"],
        rows,
        numbers=frozenset({"parameters"}),
    )


def jobs(records: list[Record]) -> Table:
    rows = [
        [
            r["id"],
            r["kind"],
            state(r["state"]),
            r.get("stage"),
            progress(r),
            r.get("attempt"),
            r.get("resource_id"),
            r["created_at"],
        ]
        for r in records
    ]
    return table_of("", ["id", "kind", "state", "stage", "progress", "attempt", "works for", "created"], rows)


def progress(job: Record) -> str:
    at = job.get("progress") or {}
    if not at.get("total"):
        return at.get("message") or ""
    eta = f", {at['eta_s']:.0f} s left" if at.get("eta_s") else ""
    return f"{at['done']}/{at['total']} {at.get('unit') or ''}{eta}".strip()


def _summary(record: Record, name: str) -> object:
    return (record.get("summary") or {}).get(name)
