"""A verification as it is shown. What is kept of it: app/db/documents."""

from typing import Any

from sqlalchemy.orm import Session, defer

from app.db.documents import StoredFile
from app.db.tables import Subset, Verification
from app.schemas.verifications import (
    FileView,
    SubsetSummary,
    SubsetView,
    VerificationSummary,
    VerificationView,
)
from app.services import spreadsheet
from app.services.verifications import SUBSETS, events_of_curve
from app.services.work_views import details_of, summary_of

_WITHOUT_LISTS = tuple(defer(getattr(Subset, name)) for name in SUBSETS.unread)
_FIRST = ("iteration", "epoch", "seconds", "lr", "loss")


def summary(_: Session, row: Verification) -> VerificationSummary:
    return VerificationSummary(**_summary(row))


def view(session: Session, row: Verification) -> VerificationView:
    result = row.result
    return VerificationView(
        **_summary(row),
        **details_of(row),
        plan=row.plan,
        subset=subset_summary(session.get_one(Subset, row.subset_id, options=_WITHOUT_LISTS)),
        val=result["val"] if result else None,
        test=result["test"] if result else None,
        best=result["best"] if result else None,
        taught=result.get("taught") if result else None,
        iterations=result["iterations"] if result else None,
        finished=result["finished"] if result else None,
        warnings=result["warnings"] if result else [],
        pictures=_files(row, "pictures", row.pictures),
        plots=_files(row, "plots", row.plots),
        seconds=row.seconds,
        resumable_at=row.state_iteration if row.state_sha256 else None,
    )


def curves(session: Session, row: Verification) -> list[dict[str, Any]]:
    """The learning curves, so far or whole."""
    return row.curves if row.curves is not None else events_of_curve(session, row.id)


def curves_csv(points: list[dict[str, Any]]) -> str:
    """A row for each point, a column for each value; nested values get names with dots."""
    flat = [_flat(point) for point in points]
    # one database keeps the order of names, the other does not
    found = sorted({name for point in flat for name in point} - set(_FIRST))
    fields = [*(name for name in _FIRST if any(name in point for point in flat)), *found]
    return spreadsheet.as_csv(fields, flat)


def subset_summary(row: Subset) -> SubsetSummary:
    return SubsetSummary(**_subset(row))


def subset_view(row: Subset) -> SubsetView:
    return SubsetView(
        **_subset(row), image_ids=row.image_ids, annotation_ids=row.annotation_ids, coverage=row.coverage
    )


def _summary(row: Verification) -> dict[str, Any]:
    return {
        **summary_of(row),
        **{name: getattr(row, name) for name in _OWN},
        "recipe": row.request["recipe"],
        "seed": row.request["seed"],
    }


_OWN = (
    "dataset_id",
    "checkpoint_id",
    "ranking_id",
    "search_id",
    "study_id",
    "subset_id",
    "map",
    "ap50",
    "split",
    "trained_checkpoint_id",
    "progress",
)


def _subset(row: Subset) -> dict[str, Any]:
    names = ("id", "dataset_id", "kind", "value", "seed", "split", "images", "created_at", "drawn_at")
    covered = row.coverage
    return {
        **{name: getattr(row, name) for name in names},
        "objects": None if covered is None else sum(covered.values()),
        "missing": None if covered is None else [name for name, count in covered.items() if not count],
    }


def _files(row: Verification, kind: str, files: list[StoredFile] | None) -> list[FileView]:
    return [
        FileView(
            url=f"/v1/verifications/{row.id}/{kind}/{file['file_name']}",
            title=file["title"],
            about=file["about"],
        )
        for file in files or []
        if file["media_type"].startswith("image/")
    ]


def _flat(point: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in point.items():
        out |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return out
