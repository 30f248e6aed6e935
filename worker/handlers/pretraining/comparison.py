"""What the verifications of a pretraining say: each arm by label fraction, the gain, and what it cost."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import tables
from app.errors import detail_of
from app.queue import verifications
from app.queue.states import JobKind, JobState
from worker.pretraining.worth import gain_of, sentence

PRETRAINED, START, SELF_TRAINING, OTHER = "pretrained", "start", "self_training", "other"
# of a student's request: which round of a self-training it is, from 1
ROUND = "round"


def is_self_training(row: tables.Pretraining) -> bool:
    # a request from before there was a choice has no method
    return row.request.get("method") == SELF_TRAINING


def arms_of(row: tables.Pretraining) -> list[tuple[str, str]]:
    """(arm, checkpoint id): what is fine-tuned, alike, on the same subsets; the first is what the others are compared with."""
    if row.start_checkpoint_id is None:
        raise AssertionError("nothing was begun with yet")
    others = [(OTHER, id) for id in row.request["compare"]["checkpoint_ids"]]
    start, student = (START, row.start_checkpoint_id), (SELF_TRAINING, row.start_checkpoint_id)
    if is_self_training(row):
        return [student, start, *others]
    if row.trained_checkpoint_id is None:
        raise AssertionError("nothing was trained yet")
    also = [student] if row.request["compare"].get("self_training") else []
    return [(PRETRAINED, row.trained_checkpoint_id), start, *also, *others]


def add_fine_tunings(session: Session, row: tables.Pretraining, job: tables.Job) -> None:
    """One verification for each arm, label fraction and seed; a seed decides subset, order and draws of all arms."""
    compare = row.request["compare"]
    arms = dict(arms_of(row))
    position = len(students(session, job.id))
    for seed in range(compare["seeds"]):
        for fraction in compare["label_fractions"]:
            for arm, checkpoint_id in arms_of(row):
                if arm == SELF_TRAINING:
                    continue  # its teacher has to be trained first
                about = {
                    "name": None,
                    # it teaches
                    "keep_weights": arm == START and SELF_TRAINING in arms,
                    "reuse": True,
                    "dataset_id": compare["dataset_id"],
                    "checkpoint_id": checkpoint_id,
                    "label_fraction": fraction,
                    "subset_seed": seed,
                    "seed": seed,
                }
                verifications.add(
                    session,
                    workspace_id=row.workspace_id,
                    request=compare["terms"] | about,
                    parent=job,
                    position=position,
                )
                position += 1


def add_students(session: Session, row: tables.Pretraining, job: tables.Job) -> int:
    """For each fine-tuning of the start one that it teaches; how many were added. A teacher that failed has none."""
    found = fine_tunings(session, job.id)
    arms = [_arm(row, one) for one in found]
    if SELF_TRAINING in arms or SELF_TRAINING not in dict(arms_of(row)):
        return 0
    able = [
        one
        for one, arm in zip(found, arms, strict=True)
        if arm == START and one.trained_checkpoint_id is not None
    ]
    for position, one in enumerate(able, len(found) + len(students(session, job.id))):
        about = {"teacher_checkpoint_id": one.trained_checkpoint_id, "keep_weights": False, **_taught_of(row)}
        verifications.add(
            session, workspace_id=row.workspace_id, request=one.request | about, parent=job, position=position
        )
    return len(able)


def _taught_of(row: tables.Pretraining) -> dict[str, Any]:
    """The pictures of a self-training; in a comparison of pretrained weights the subset leaves enough."""
    if not is_self_training(row):
        return {}
    return {
        "unlabelled_dataset_id": row.dataset_id,
        "mean_teacher": bool(row.request.get("mean_teacher")),
    }


def _arm(row: tables.Pretraining, one: tables.Verification) -> str:
    if one.request.get("teacher_checkpoint_id") is not None:
        return SELF_TRAINING
    own = {row.start_checkpoint_id: START}
    if not is_self_training(row):
        own[row.trained_checkpoint_id] = PRETRAINED
    return own.get(one.checkpoint_id, OTHER)


def compared(session: Session, row: tables.Pretraining, job_id: str) -> dict[str, Any]:
    """The document that the service shows as `comparison`."""
    found = fine_tunings(session, job_id)
    names = {id: session.get_one(tables.Checkpoint, id).name for _, id in arms_of(row)}
    values: dict[tuple[float, str, str], dict[str, dict[int, float]]] = defaultdict(
        lambda: {"map": {}, "ap50": {}}
    )
    left_out = []
    for one in found:
        key = (float(one.request["label_fraction"]), _arm(row, one), one.checkpoint_id)
        if one.state != JobState.SUCCEEDED or one.map is None or one.ap50 is None:
            why = detail_of(one.error, f"it was {one.state}")
            left_out.append({"verification_id": one.id, "reason": why})
            continue
        values[key]["map"][one.request["seed"]] = one.map
        values[key]["ap50"][one.request["seed"]] = one.ap50
    rows, gains, sentences = [], [], []
    for fraction in row.request["compare"]["label_fractions"]:
        first, mine = arms_of(row)[0], values[(fraction, *arms_of(row)[0])]
        for arm, id in arms_of(row):
            its = values[fraction, arm, id]
            rows.append(
                {
                    "label_fraction": fraction,
                    "arm": arm,
                    "checkpoint_id": id,
                    "name": names[id],
                    **{name: _mean(list(by_seed.values())) for name, by_seed in its.items()},
                    "by_seed": {
                        name: {str(seed): value for seed, value in by_seed.items()}
                        for name, by_seed in its.items()
                    },
                }
            )
            if (arm, id) == first:
                continue
            gain = {name: gain_of(mine[name], its[name]) for name in ("map", "ap50")}
            gains.append(
                {
                    "label_fraction": fraction,
                    "against": arm,
                    "checkpoint_id": id,
                    "name": names[id],
                    **{name: one.to_json() for name, one in gain.items()},
                }
            )
            start = "the labels alone" if is_self_training(row) else "what it started from"
            what = {START: start, SELF_TRAINING: "self-training"}.get(arm, names[id])
            sentences.append(sentence(fraction, what, gain["ap50"]))
    splits = sorted({one.split for one in found if one.split})
    return {
        "dataset_id": row.request["compare"]["dataset_id"],
        "measured_on": splits,
        "arms": rows,
        "gains": gains,
        "left_out": left_out,
        "verdict": sentences,
    }


def fine_tunings(session: Session, job_id: str) -> list[tables.Verification]:
    """The verifications of the comparison, in the order in which they were added."""
    return [one for one in _verifications(session, job_id) if ROUND not in one.request]


def students(session: Session, job_id: str) -> list[tables.Verification]:
    """The verifications that a self-training itself is made of, one for each round."""
    return [one for one in _verifications(session, job_id) if ROUND in one.request]


def _verifications(session: Session, job_id: str) -> Sequence[tables.Verification]:
    ids = select(tables.Job.resource_id).where(
        tables.Job.parent_id == job_id, tables.Job.kind == JobKind.VERIFY.value
    )
    query = select(tables.Verification).where(tables.Verification.id.in_(ids))
    return session.scalars(query.order_by(tables.Verification.position)).all()


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
