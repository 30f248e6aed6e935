"""A pretraining as it is shown.

What its jobs write into `Pretraining.result`, and is read here:
{"recall": {"start", "end"}, "pictures", "held_out", "iterations", "finished", "warnings", "cost", "comparison",
"self_training": {"teacher", "rounds"}}
"""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Job, Pretraining, Verification
from app.queue.states import ENDED, JobKind
from app.schemas.pretrainings import Comparison, PretrainingSummary, PretrainingView, SelfTrainingView
from app.schemas.verifications import FileView
from app.services.self_trainings import DETREG, SELF_TRAINING
from app.services.verifications import events_of_curve
from app.services.work_views import details_of, summary_of

_OWN = (
    "dataset_id",
    "start_checkpoint_id",
    "encoder_checkpoint_id",
    "trained_checkpoint_id",
    "progress",
)


def summary(_: Session, row: Pretraining) -> PretrainingSummary:
    return PretrainingSummary(**_summary(row))


def view(session: Session, row: Pretraining) -> PretrainingView:
    result = row.result or {}
    student = _student(session, row)
    return PretrainingView(
        **(_summary(row) | ({"progress": student.progress} if student is not None else {})),
        **details_of(row),
        plan=row.plan,
        recall=result.get("recall"),
        trained_on=result.get("pictures"),
        held_out=result.get("held_out"),
        iterations=result.get("iterations"),
        finished=result.get("finished"),
        warnings=result.get("warnings") or [],
        self_training=SelfTrainingView(**told) if (told := result.get("self_training")) else None,
        verification_ids=_verifications(session, row),
        comparison=Comparison(**comparison) if (comparison := result.get("comparison")) else None,
        cost=result.get("cost"),
        pictures=_files(row, "pictures"),
        plots=_files(row, "plots"),
        seconds=row.seconds,
        resumable_at=_resumable_at(row if student is None else student),
    )


def curves(session: Session, row: Pretraining) -> list[dict[str, Any]]:
    """Losses and recall, so far or whole."""
    if row.curves is not None:
        return row.curves
    student = _student(session, row)
    if student is None:
        return events_of_curve(session, row.id)
    return student.curves if student.curves is not None else events_of_curve(session, student.id)


def _student(session: Session, row: Pretraining) -> Verification | None:
    """Of a self-training that has not ended the verification of its newest round, which is what is at work."""
    if _method(row) != SELF_TRAINING or row.state in ENDED or (row.result or {}).get("self_training"):
        return None
    query = (
        select(Verification)
        .join(Job, Job.id == Verification.job_id)
        .where(Job.parent_id == row.job_id)
        .order_by(Verification.position.desc())
    )
    return session.scalar(query.limit(1))


def _resumable_at(row: Pretraining | Verification) -> int | None:
    return row.state_iteration if row.state_sha256 else None


def _method(row: Pretraining) -> str:
    return row.request.get("method") or DETREG


def _summary(row: Pretraining) -> dict[str, Any]:
    return {
        **summary_of(row),
        "method": _method(row),
        **{name: getattr(row, name) for name in _OWN},
        **{name: row.request[name] for name in ("recipe", "proposals", "seed")},
    }


def _verifications(session: Session, row: Pretraining) -> list[str]:
    query = select(Job.resource_id).where(Job.parent_id == row.job_id, Job.kind == JobKind.VERIFY.value)
    return list(session.scalars(query.order_by(Job.id)))


def _files(row: Pretraining, kind: str) -> list[FileView]:
    return [
        FileView(
            url=f"/v1/pretrainings/{row.id}/{kind}/{file['file_name']}",
            title=file["title"],
            about=file["about"],
        )
        for file in getattr(row, kind) or []
    ]
