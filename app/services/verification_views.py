"""A verification as it is shown.

What the `verify` job writes into `Verification.result`, and is read here:
{"val": evaluation, "test": evaluation or None, "best": {...}, "iterations": n, "finished": word, "warnings": [...]}
and into `pictures` and `plots`: [{"sha256", "file_name", "media_type", "title", "about": {...}}]
"""

import csv
import io
from typing import Any

from sqlalchemy.orm import Session, defer

from app.db.tables import Subset, Verification
from app.schemas.verifications import (
    FileView,
    SubsetSummary,
    SubsetView,
    VerificationSummary,
    VerificationView,
)
from app.services.verifications import events_of_curve

# a row of a large dataset's subset is megabytes, of which a summary needs none
WITHOUT_LISTS = (defer(Subset.image_ids), defer(Subset.annotation_ids))
_FIRST = ("iteration", "epoch", "seconds", "lr", "loss")


def summary(row: Verification) -> VerificationSummary:
    return VerificationSummary(**_summary(row))


def view(session: Session, row: Verification) -> VerificationView:
    result = row.result or {}
    return VerificationView(
        **_summary(row),
        request=row.request,
        plan=row.plan,
        subset=subset_summary(session.get(Subset, row.subset_id, options=WITHOUT_LISTS)),
        val=result.get("val"),
        test=result.get("test"),
        best=result.get("best"),
        iterations=result.get("iterations"),
        finished=result.get("finished"),
        warnings=result.get("warnings") or [],
        pictures=_files(row, "pictures", row.pictures),
        plots=_files(row, "plots", row.plots),
        seconds=row.seconds,
        resumable_at=row.state_iteration if row.state_sha256 else None,
        cancel_requested_at=row.cancel_requested_at,
    )


def curves(session: Session, row: Verification) -> list[dict[str, Any]]:
    """The learning curves, so far or whole."""
    return row.curves if row.curves is not None else events_of_curve(session, row.id)


def curves_csv(points: list[dict[str, Any]]) -> str:
    """RFC 4180 text: a row for each point, a column for each value; nested values get names with dots."""
    flat = [_flat(point) for point in points]
    # one database keeps the order of names, the other does not
    found = sorted({name for point in flat for name in point} - set(_FIRST))
    fields = [*(name for name in _FIRST if any(name in point for point in flat)), *found]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, fieldnames=fields, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def subset_summary(row: Subset) -> SubsetSummary:
    return SubsetSummary(**_subset(row))


def subset_view(row: Subset) -> SubsetView:
    return SubsetView(
        **_subset(row), image_ids=row.image_ids, annotation_ids=row.annotation_ids, coverage=row.coverage
    )


def _summary(row: Verification) -> dict[str, Any]:
    return {
        **{name: getattr(row, name) for name in _PLAIN},
        "name": row.request.get("name"),
        "recipe": row.request["recipe"],
        "seed": row.request["seed"],
    }


_PLAIN = (
    "id", "state", "stage", "dataset_id", "checkpoint_id", "ranking_id", "search_id", "study_id", "subset_id",
    "map", "ap50", "split", "trained_checkpoint_id", "progress", "error", "job_id", "created_at", "started_at", "finished_at",
)  # fmt: skip


def _subset(row: Subset) -> dict[str, Any]:
    names = ("id", "dataset_id", "kind", "value", "seed", "split", "images", "created_at", "drawn_at")
    covered = row.coverage
    return {
        **{name: getattr(row, name) for name in names},
        "objects": None if covered is None else sum(covered.values()),
        "missing": None if covered is None else [name for name, count in covered.items() if not count],
    }


def _files(row: Verification, kind: str, files: list[Any] | None) -> list[FileView]:
    return [
        FileView(url=f"/v1/verifications/{row.id}/{kind}/{file['file_name']}", title=file["title"], about=file["about"])
        for file in files or []
    ]


def _flat(point: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in point.items():
        out |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return out
