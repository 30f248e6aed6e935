"""Seconds, memory and whether it fits, from a step that was measured."""

from datetime import UTC, datetime, timedelta

import pytest

from app.db.tables import MeasuredStep
from app.queue.training_costs import NOT_MEASURED, foreseen, keep, steps_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GIB = 2**30
ASKED = {
    "key": "k" * 64,
    "recipe": "quick",
    "image_size": 320,
    "batch_size": 4,
    "iterations": 240,
    "budget_s": None,
    "val_looks": 30,
    "end_looks": 20,
    "pixels": 100_000.0,
    "device": "a card",
    "memory_bytes": 10 * GIB,
    "unknown": None,
}
STEP = {
    "step_s": 0.5,
    "image_s": 0.1,
    "peak_memory_bytes": 4 * GIB,
    "pixels": 100_000.0,
    "measured": "step",
}


def test_seconds_are_steps_and_looks() -> None:
    found = foreseen(ASKED, STEP)
    assert found.seconds == pytest.approx(240 * 0.5 + 50 * 0.1)
    assert (found.peak_memory_bytes, found.fits, found.measured, found.unknown) == (
        4 * GIB,
        True,
        "step",
        None,
    )
    budget = foreseen(ASKED | {"iterations": None, "budget_s": 60.0}, STEP)
    assert budget.seconds == pytest.approx(60 + 50 * 0.1)


@pytest.mark.parametrize(("gib", "fits"), [(8.9, True), (9.5, None), (10.1, False)])
def test_it_fits_where_there_is_room_to_spare(gib: float, fits: bool | None) -> None:
    found = foreseen(ASKED, STEP | {"peak_memory_bytes": int(gib * GIB)})
    assert found.fits is fits
    assert (found.unknown is None) == (fits is True)


def test_what_is_not_known_is_said_to_be_so() -> None:
    assert foreseen(ASKED, None).unknown == NOT_MEASURED
    assert foreseen(ASKED, STEP | {"pixels": 60_000.0}).unknown == NOT_MEASURED
    assert foreseen(ASKED, STEP | {"pixels": 80_000.0}).seconds is not None
    assert foreseen(ASKED | {"unknown": "no recipe fits"}, STEP).unknown == "no recipe fits"
    without = foreseen(ASKED, STEP | {"peak_memory_bytes": None})
    assert (without.fits, without.seconds is not None) == (None, True)
    assert "not been measured" in (without.unknown or "")
    too_large = foreseen(ASKED, STEP | {"too_large": True, "step_s": None, "peak_memory_bytes": None})
    assert (too_large.fits, too_large.seconds) == (False, None)


def test_a_whole_training_corrects_the_seconds_and_keeps_the_memory(database) -> None:
    key = "a" * 64
    with database.unit_of_work() as session:
        keep(session, key, STEP, NOW)
    trained = STEP | {"step_s": 0.7, "image_s": None, "peak_memory_bytes": None, "measured": "verification"}
    with database.unit_of_work() as session:
        keep(session, key, trained, NOW + timedelta(hours=1))
    with database.reading() as session:
        found = steps_of(session, [key, None, "b" * 64])
        assert session.get(MeasuredStep, key).measured_at == NOW + timedelta(hours=1)
    assert found == {key: STEP | {"step_s": 0.7, "measured": "verification", "too_large": False}}


def test_pictures_of_another_size_begin_anew(database) -> None:
    key = "a" * 64
    other = STEP | {"pixels": 300_000.0, "peak_memory_bytes": None}
    with database.unit_of_work() as session:
        keep(session, key, STEP, NOW)
        keep(session, key, other, NOW)
    with database.reading() as session:
        assert steps_of(session, [key]) == {key: other}
