"""What has to be said beside every number that stands on boxes that nobody drew."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import tables
from app.db.documents import Warned


def origin_of(session: Session, dataset: tables.Dataset, checkpoint_ids: Sequence[str]) -> list[Warned]:
    """Warnings about a dataset with pseudo boxes; empty for any other. checkpoint_ids: what stands to be chosen."""
    if dataset.supervision != "pseudo_boxes":
        return []
    lineage = dataset.lineage
    teacher = lineage["teacher"] if lineage else "a teacher that is not known"
    query = select(tables.PseudoLabelling).where(tables.PseudoLabelling.made_dataset_id == dataset.id)
    row = session.scalars(query.limit(1)).first()
    found: list[Warned] = [
        {
            "code": "pseudo_boxes",
            "detail": f"boxes of this dataset are pseudo boxes by {teacher}, not drawn by a person: {_worth(row)}",
        }
    ]
    checkpoint = lineage["checkpoint"] if lineage else None
    if checkpoint is not None and checkpoint["id"] in checkpoint_ids:
        found.append(
            {
                "code": "teacher_is_candidate",
                "detail": f"{checkpoint['name']} taught the boxes that it is compared by: it is at an advantage",
            }
        )
    return found


def _worth(row: tables.PseudoLabelling | None) -> str:
    quality = (row.result or {}).get("quality") if row is not None else None
    if not quality:
        return "how many of them are right is not known; review some, or give true boxes of some pictures"
    shares = [
        f"{name} {'undefined' if quality[name] is None else format(quality[name], '.2f')}"
        for name in ("precision", "recall")
    ]
    return f"{', '.join(shares)} at IoU 0.5 against {quality['measured_on']}"
