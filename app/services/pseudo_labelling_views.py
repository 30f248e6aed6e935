"""A pseudo-labelling as it is shown."""

from typing import Any

from sqlalchemy.orm import Session

from app.db.tables import PseudoLabelling
from app.schemas.pseudo_labellings import PseudoBoxQuality, PseudoLabellingSummary, PseudoLabellingView
from app.schemas.verifications import FileView
from app.services.verifications import events_of_curve
from app.services.work_views import details_of, summary_of

_OWN = (
    "dataset_id",
    "checkpoint_id",
    "truth_dataset_id",
    "made_dataset_id",
    "trained_checkpoint_id",
    "progress",
)


def summary(_: Session, row: PseudoLabelling) -> PseudoLabellingSummary:
    return PseudoLabellingSummary(**_summary(row))


def shown(_: Session, row: PseudoLabelling, __: Any) -> PseudoLabellingView:
    result = row.result or {}
    return PseudoLabellingView(
        **_summary(row),
        **details_of(row),
        looked_at=result.get("looked_at"),
        labelled=result.get("pictures"),
        boxes=result.get("boxes"),
        said=result.get("teacher"),
        quality=PseudoBoxQuality(**quality) if (quality := result.get("quality")) else None,
        warnings=result.get("warnings") or [],
        cost=result.get("cost"),
        pictures=_files(row, "pictures"),
        plots=_files(row, "plots"),
        seconds=row.seconds,
    )


def curves(session: Session, row: PseudoLabelling) -> list[dict[str, Any]]:
    """Losses of a teacher that learns, so far or whole."""
    return row.curves if row.curves is not None else events_of_curve(session, row.id)


def _summary(row: PseudoLabelling) -> dict[str, Any]:
    return {
        **summary_of(row),
        **{name: getattr(row, name) for name in _OWN},
        "teacher": row.request["teacher"],
    }


def _files(row: PseudoLabelling, kind: str) -> list[FileView]:
    return [
        FileView(
            url=f"/v1/pseudo-labellings/{row.id}/{kind}/{file['file_name']}",
            title=file["title"],
            about=file["about"],
        )
        for file in getattr(row, kind) or []
    ]
