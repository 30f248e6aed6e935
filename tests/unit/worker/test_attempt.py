"""What a running job says and hears, with the thread that holds its lease."""

import threading
import time

import pytest

from app.db.tables import Dataset
from app.errors import TimeLimitExceeded
from app.queue import leases
from app.queue.states import JobState
from tests import control
from tests.queue_records import let_lapse
from worker.attempt import MOST_LOGS, Cancelled, LeaseLost


def wait_until(true, what):
    give_up = time.monotonic() + 30
    while not true():
        assert time.monotonic() < give_up, what
        time.sleep(0.01)


def raised(attempt, kind):
    """Whether `check` raises `kind`, and nothing else."""
    try:
        attempt.check()
    except kind:
        return True
    return False


def test_stage_progress_and_log_reach_the_row_and_the_stream(bench):
    with bench.attempt() as attempt:
        attempt.stage("working")
        for done in range(1, 5):
            attempt.progress(done, 4, "images", f"image {done}")
        attempt.log("half\x00way", "warning")
        attempt.flush()
        job = bench.job()
        assert (job.stage, job.progress_done, job.progress_total, job.progress_message) == (
            "working",
            4,
            4,
            "image 4",
        )
    assert bench.events("log") == [{"level": "warning", "message": "halfway"}]
    assert [event["fraction"] for event in bench.events("progress")] == [1.0], (
        "many reports at once are one event"
    )


def test_what_was_said_is_written_without_being_asked(bench):
    with bench.attempt() as attempt:
        attempt.progress(1, 4, "images")
        wait_until(lambda: bench.job().progress_done == 1, "the thread writes progress")


def test_libraries_count_and_are_stopped_through_the_same_door(bench):
    with bench.attempt() as attempt:
        count = attempt.counted("layers")
        count(1, 2, "one")
        attempt.flush()
        assert bench.job().progress_unit == "layers"
        attempt._cancel = True
        with pytest.raises(Cancelled):
            count(2, 2, "two")


def test_the_time_left_is_told_from_the_pace_so_far(bench, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("worker.attempt.time.monotonic", lambda: now[0])
    attempt = bench.attempt()
    for done in range(5):
        attempt.progress(done, 20, "images")
        now[0] += 2.0
    assert attempt._progress["eta_s"] == 32.0
    attempt.progress(0, 10, "layers")
    assert attempt._progress["eta_s"] is None
    attempt.progress(5, None, "images")
    assert attempt._progress["eta_s"] is None


def test_a_flood_of_log_lines_is_cut_off(bench):
    with bench.attempt() as attempt:
        for number in range(MOST_LOGS + 10):
            attempt.log("x" * 5000 if number == 0 else "x")
        attempt.flush()
    lines = bench.events("log")
    assert len(lines) == MOST_LOGS
    assert len(lines[0]["message"]) == 2000


def test_a_lease_is_held_for_longer_than_it_lasts(bench):
    claim = bench.claim(lease_s=0.6)
    with bench.attempt(claim) as attempt:
        time.sleep(1.5)
        assert leases.requeue_lapsed(bench.database) == []
        attempt.check()


def test_a_cancellation_is_heard(bench):
    with bench.attempt() as attempt:
        attempt.check()
        bench.do(control.cancel, bench.job_id)
        wait_until(lambda: raised(attempt, Cancelled), "the attempt hears that it is cancelled")


def test_a_lost_lease_is_heard_and_nothing_more_is_written(bench):
    with bench.attempt() as attempt:
        let_lapse(bench.database, bench.job_id)
        bench.claim()
        wait_until(lambda: raised(attempt, LeaseLost), "the attempt hears that its lease is lost")
        with pytest.raises(LeaseLost), attempt.writing() as session:
            session.get(Dataset, attempt.job.resource_id).name = "stolen"


def test_writing_in_the_middle_of_a_job(bench):
    with bench.attempt() as attempt:
        with attempt.writing() as session:
            session.get(Dataset, attempt.job.resource_id).name = "renamed"
        with bench.database.reading() as session:
            assert session.get(Dataset, attempt.job.resource_id).name == "renamed"


def test_past_its_time_a_job_is_told_so(bench):
    bench.settings.intake_time_limit_s = 0.1
    bench.settings.stop_grace_s = 60
    with bench.attempt() as attempt:
        wait_until(lambda: raised(attempt, TimeLimitExceeded), "the attempt hears that its time is over")


@pytest.mark.parametrize(
    ("reason", "state"),
    [("cancel", JobState.CANCELLED), ("time", JobState.FAILED), ("lease", JobState.RUNNING)],
)
def test_a_handler_that_does_not_listen_loses_its_process(bench, reason, state):
    left = threading.Event()
    codes = []
    if reason == "time":
        bench.settings.intake_time_limit_s = 0.1
    with bench.attempt(leave=lambda code: (codes.append(code), left.set())):
        if reason == "cancel":
            bench.do(control.cancel, bench.job_id)
        elif reason == "lease":
            let_lapse(bench.database, bench.job_id)
            bench.claim()
        assert left.wait(30)
        assert bench.job().state == state
    assert codes[0] == 75


def test_releasing_puts_the_job_back_and_stops_the_handler(bench):
    with bench.attempt() as attempt:
        attempt.release()
        assert bench.job().state == JobState.QUEUED
        with pytest.raises(LeaseLost):
            attempt.check()
        attempt.release()


def test_the_thread_outlives_a_database_that_is_away(bench, monkeypatch):
    with bench.attempt() as attempt:
        healthy = bench.database.unit_of_work
        monkeypatch.setattr(bench.database, "unit_of_work", lambda: 1 / 0)
        attempt.progress(1, 2, "images")
        time.sleep(0.8)
        monkeypatch.setattr(bench.database, "unit_of_work", healthy)
        wait_until(lambda: bench.job().progress_done == 1, "progress is written when the database is back")
