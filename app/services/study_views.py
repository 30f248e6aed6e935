"""A study as it is shown. What is kept of it: app/db/documents."""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.documents import StoredFile
from app.db.tables import Checkpoint, Dataset, Ranking, Study, Verification
from app.queue.states import ENDED
from app.schemas.studies import (
    StudyCorrelations,
    StudyLeftOut,
    StudyRanking,
    StudySpent,
    StudySummary,
    StudyTraining,
    StudyView,
)
from app.schemas.verifications import FileView
from app.services.work_views import details_of, summary_of

REPORT = "report.html"
_ECHOED = ("dataset_ids", "checkpoint_ids", "seeds")


def summary(session: Session, row: Study) -> StudySummary:
    return StudySummary(**_summary(session, row))


def view(session: Session, row: Study) -> StudyView:
    result = row.result
    files = row.files or []
    return StudyView(
        **_summary(session, row),
        **details_of(row),
        names=result["names"] if result else _names(session, row),
        rankings=_rankings(session, row.id),
        trainings=_trainings(session, row.id),
        correlations=StudyCorrelations.model_validate(result["correlations"]) if result else None,
        left_out=[StudyLeftOut(**one) for one in result["left_out"]] if result else [],
        warnings=result["warnings"] if result else [],
        spent=StudySpent(**result["spent"]) if result else None,
        report=f"/v1/studies/{row.id}.html" if any(file["file_name"] == REPORT for file in files) else None,
        files=[FileView(url=_url(row, file), title=file["title"], about=file["about"]) for file in files],
    )


def file_named(row: Study, name: str) -> StoredFile | None:
    return next((file for file in row.files or [] if file["file_name"] == name), None)


def _url(row: Study, file: StoredFile) -> str:
    folder = "plots" if file["about"]["kind"] == "plot" else "files"
    return f"/v1/studies/{row.id}/{folder}/{file['file_name']}"


def _summary(session: Session, row: Study) -> dict[str, Any]:
    states: list[Any] = []
    for table in (Ranking, Verification):
        query = select(table.state, func.count()).where(table.study_id == row.id).group_by(table.state)
        states += session.execute(query).all()
    done, total = sum(n for state, n in states if state in ENDED), sum(n for _, n in states)
    return {
        **summary_of(row),
        **{name: row.request[name] for name in _ECHOED},
        "progress": {"done": done, "total": total, "fraction": done / total if total else 0.0},
        "verdict": session.scalar(select(Study.result["verdict"]).where(Study.id == row.id)) or [],
    }


def _names(session: Session, row: Study) -> dict[str, str]:
    names: dict[str, str] = {}
    for table, ids in ((Dataset, row.request["dataset_ids"]), (Checkpoint, row.request["checkpoint_ids"])):
        for start in range(0, len(ids), 500):  # SQLite takes a limited number of parameters
            query = select(table.id, table.name).where(table.id.in_(ids[start : start + 500]))
            names |= dict(session.execute(query).all())
    return names


def _rankings(session: Session, study_id: str) -> list[StudyRanking]:
    query = (
        select(Ranking.id, Ranking.dataset_id, Dataset.name.label("dataset"), Ranking.state, Ranking.error)
        .join(Dataset, Dataset.id == Ranking.dataset_id)
        .where(Ranking.study_id == study_id)
        .order_by(Ranking.id)
    )
    return [StudyRanking(**row._asdict()) for row in session.execute(query)]


def _trainings(session: Session, study_id: str) -> list[StudyTraining]:
    # a whole result holds curves and tables by class: only what is shown is read
    result = Verification.result
    boxes = {
        f"{split}_{name}": result[split]["box"][name].as_float()
        for split in ("test", "val")
        for name in ("map", "ap50")
    }
    query = (
        select(
            Verification.id.label("verification_id"),
            Verification.dataset_id,
            Verification.checkpoint_id,
            Verification.request["seed"].as_integer().label("seed"),
            Verification.state,
            Verification.seconds,
            Verification.error,
            result["reused_from"].as_string().label("reused_from"),
            result["test"]["images"].as_integer().label("test_images"),
            result["val"]["images"].as_integer().label("val_images"),
            *(column.label(name) for name, column in boxes.items()),
        )
        .where(Verification.study_id == study_id)
        .order_by(Verification.position)
    )
    return [_training(row._asdict()) for row in session.execute(query)]


def _training(row: dict[str, Any]) -> StudyTraining:
    split = next((name for name in ("test", "val") if row[f"{name}_images"] is not None), None)
    map_, ap50 = (row[f"{split}_map"], row[f"{split}_ap50"]) if split else (None, None)
    return StudyTraining.model_validate(row | {"map": map_, "ap50": ap50, "split": split})
