"""What is shown of every kind of long work."""

from typing import Any

from app.db.work import Work
from app.schemas.work import WorkSummary

_COLUMNS = tuple(name for name in WorkSummary.model_fields if name != "name")


def summary_of(row: Work) -> dict[str, Any]:
    """The fields of a `WorkSummary`."""
    return {name: getattr(row, name) for name in _COLUMNS} | {"name": row.request.get("name")}


def details_of(row: Work) -> dict[str, Any]:
    """The fields of `WorkDetails`."""
    return {"request": row.request, "cancel_requested_at": row.cancel_requested_at}
