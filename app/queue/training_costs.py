"""What fine-tuning a candidate takes: a step was measured on this device, once for all that train alike."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db.documents import StepCost, TrainingAsked
from app.db.tables import Candidate, MeasuredStep, Ranking

# of a device's memory, up to where it surely fits: allocators round up, and libraries have memory of their own
SURELY = 0.9
# a step that was measured on pictures of another size says nothing beyond this share
ALIKE = 0.25
_AT_ONCE = 500  # SQLite takes a limited number of parameters


@dataclass(frozen=True)
class Foreseen:
    """seconds: of all steps and evaluations; peak_memory_bytes: of a step; fits: None where nobody can tell.

    unknown: why something is not known, or why it fits or not; None where there is nothing to say.
    """

    seconds: float | None = None
    step_s: float | None = None
    peak_memory_bytes: int | None = None
    fits: bool | None = None
    measured: Literal["step", "verification"] | None = None
    unknown: str | None = None


TOO_LARGE = "not even one picture at a time fits into the device's memory: a smaller image_size needs less"
NOT_MEASURED = "no step of such a training has been measured on this device: rank with measure_training, or fine-tune one"


def foreseen(asked: TrainingAsked, step: StepCost | None) -> Foreseen:
    """What the training that is asked about takes, by a step that was measured for its key."""
    if asked["unknown"] is not None:
        return Foreseen(unknown=asked["unknown"])
    if step is None or not alike(asked["pixels"], step["pixels"]):
        return Foreseen(unknown=NOT_MEASURED)
    if step.get("too_large"):
        return Foreseen(fits=False, measured=step["measured"], unknown=TOO_LARGE)
    peak, there = step["peak_memory_bytes"], asked["memory_bytes"]
    fits, why = _fits(peak, there)
    return Foreseen(_seconds(asked, step), step["step_s"], peak, fits, step["measured"], why)


def alike(one: float | None, other: float | None) -> bool:
    """Whether two numbers of pixels are so near that a step costs the same."""
    return one is not None and other is not None and abs(one - other) <= ALIKE * max(one, other)


def steps_of(session: Session, keys: Iterable[str | None]) -> dict[str, StepCost]:
    """Those that were measured, by key."""
    wanted = sorted({key for key in keys if key is not None})
    found: dict[str, StepCost] = {}
    for begin in range(0, len(wanted), _AT_ONCE):
        some = MeasuredStep.key.in_(wanted[begin : begin + _AT_ONCE])
        rows = session.execute(select(MeasuredStep.key, MeasuredStep.step).where(some))
        found |= {row.key: row.step for row in rows}
    return found


def keep(session: Session, key: str, step: StepCost, now: datetime) -> None:
    """Keep what was measured. What it does not know stays as it was measured before, on pictures of that size.

    Rankings of whatever workspace that show it have a new version.
    """
    before = steps_of(session, [key]).get(key)
    kept: dict[str, Any] = dict(step)
    if before is not None and alike(before["pixels"], step["pixels"]):
        kept = {**before, **{name: value for name, value in kept.items() if value is not None}}
        kept["too_large"] = step.get("too_large", False)
    insert = (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert
    values = {"step": kept, "measured_at": now}
    session.execute(
        insert(MeasuredStep)
        .values(key=key, **values)
        .on_conflict_do_update(index_elements=["key"], set_=values)
    )
    _shown_anew(session, key)


def _shown_anew(session: Session, key: str) -> None:
    asking = select(Candidate.ranking_id).where(Candidate.training_key == key)
    # locked in one order, for others do the same at the same time
    ids = session.scalars(
        select(Ranking.id).where(Ranking.id.in_(asking)).order_by(Ranking.id).with_for_update()
    ).all()
    for begin in range(0, len(ids), _AT_ONCE):
        session.execute(
            update(Ranking)
            .where(Ranking.id.in_(ids[begin : begin + _AT_ONCE]))
            .values(version=Ranking.version + 1)
            .execution_options(synchronize_session=False)
        )


def _seconds(asked: TrainingAsked, step: StepCost) -> float | None:
    if step["image_s"] is None:
        return None
    looking = (asked["val_looks"] + asked["end_looks"]) * step["image_s"]
    if asked["budget_s"] is not None:
        return asked["budget_s"] + looking
    if asked["iterations"] is None or step["step_s"] is None:
        return None
    return asked["iterations"] * step["step_s"] + looking


def _fits(peak: int | None, there: int | None) -> tuple[bool | None, str | None]:
    if peak is None:
        return None, "how much memory a step needs has not been measured on this device"
    if there is None:
        return None, "how much memory the device has is not known"
    if peak <= SURELY * there:
        return True, None
    if peak > there:
        return (
            False,
            f"a step needs {peak:,} bytes and the device has {there:,}: a smaller batch_size or image_size",
        )
    return None, f"a step needs {peak:,} of the device's {there:,} bytes: too close to call"
