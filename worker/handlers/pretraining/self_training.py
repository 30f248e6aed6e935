"""A pretraining by self-training: one verification for each round, in which a teacher's student becomes the next teacher."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import tables
from app.db.documents import PREDICTIONS, PretrainingResult
from app.errors import PretrainingFailed, detail_of
from app.queue import verifications
from app.queue.states import JobState
from worker.handlers.pretraining.comparison import ROUND, students


def refuse_broken(session: Session, row: tables.Pretraining, job_id: str) -> None:
    """Raises PretrainingFailed, with the student's own reason, where a round gave no student."""
    for number, one in enumerate(students(session, job_id), 1):
        if one.state == JobState.SUCCEEDED and (one.trained_checkpoint_id is not None or is_taken_over(row)):
            continue
        gone = "its weights were deleted" if one.state == JobState.SUCCEEDED else f"it was {one.state}"
        code = None if one.error is None else one.error["code"]
        raise PretrainingFailed(
            f"the student of round {number} ({one.id}): {detail_of(one.error, gone)}", code=code
        )


def is_taken_over(row: tables.Pretraining) -> bool:
    """Whether all rounds are done and what they came to is on the row."""
    return "self_training" in (row.result or {})


def add_round(session: Session, row: tables.Pretraining, job: tables.Job) -> bool:
    """Adds the next student, taught by the one before; False where all rounds are done."""
    before = students(session, job.id)
    if len(before) >= row.request["rounds"]:
        return False
    teacher = before[-1].trained_checkpoint_id if before else row.request["teacher_checkpoint_id"]
    about = {
        "name": None,
        "dataset_id": row.request["labelled_dataset_id"],
        "checkpoint_id": row.start_checkpoint_id,
        "teacher_checkpoint_id": teacher,
        "unlabelled_dataset_id": row.dataset_id,
        "mean_teacher": bool(row.request.get("mean_teacher")),
        "seed": row.request["seed"],
        ROUND: len(before) + 1,
    }
    verifications.add(
        session,
        workspace_id=row.workspace_id,
        request=row.request["terms"] | about,
        parent=job,
        position=len(before),
    )
    return True


def take_over(session: Session, row: tables.Pretraining, job_id: str) -> None:
    """Writes what the last student is as the result of the whole, and what each round came to."""
    found = students(session, job_id)
    last = found[-1]
    row.trained_checkpoint_id, row.plan = last.trained_checkpoint_id, last.plan
    row.curves, row.seconds, row.plots = last.curves, last.seconds, last.plots
    # the document beside the pictures is for the page of a verification
    row.pictures = [file for file in last.pictures or [] if file["file_name"] != PREDICTIONS]
    result = last.result
    if result is None:
        raise AssertionError(f"{last.id} has no result")
    lesson = result["taught"]
    told: PretrainingResult = {
        "pictures": lesson["labelled_pictures"] + lesson["pictures"],
        "held_out": {"equal_content": lesson["equal_content"]},
        "iterations": result["iterations"],
        "finished": result["finished"],
        "warnings": [each if isinstance(each, str) else str(each) for each in result["warnings"]],
        "self_training": {
            "teacher": _teacher(session, row),
            "rounds": [_round(one) for one in found],
        },
    }
    row.result = told


def seconds_of_rounds(session: Session, job_id: str) -> float:
    """Seconds that the students were in the hands of workers."""
    ids = [one.job_id for one in students(session, job_id)]
    worked = session.scalars(select(tables.Job.worked_s).where(tables.Job.id.in_(ids)))
    return round(sum(value or 0.0 for value in worked), 1)


def _round(one: tables.Verification) -> dict[str, Any]:
    lesson = one.result.get("taught", {}) if one.result is not None else {}
    kept = ("confidence", "f1", "boxes", "pictures", "unlabelled_pictures", "equal_content")
    return {
        "verification_id": one.id,
        "teacher_checkpoint_id": one.request["teacher_checkpoint_id"],
        "trained_checkpoint_id": one.trained_checkpoint_id,
        **{name: lesson.get(name) for name in kept},
        **_measured(one),
    }


def _teacher(session: Session, row: tables.Pretraining) -> dict[str, Any]:
    """The teacher of the first round, with its own figures on the labelled dataset where a verification has them."""
    id = row.request["teacher_verification_id"]
    one = session.get(tables.Verification, id) if id is not None else None
    figures = (
        _measured(one) if one is not None and one.dataset_id == row.request["labelled_dataset_id"] else {}
    )
    return {"checkpoint_id": row.request["teacher_checkpoint_id"], "verification_id": id} | figures


def _measured(one: tables.Verification) -> dict[str, Any]:
    return {"map": one.map, "ap50": one.ap50, "split": one.split}
