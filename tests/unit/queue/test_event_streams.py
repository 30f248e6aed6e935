"""Event streams: numbers without gaps whoever writes, and progress that never goes back."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Event, Job
from app.queue import events
from tests.queue_records import add_ingest


def test_numbers_have_no_gaps_when_many_write_at_once(database, workspace_id):
    with database.unit_of_work() as session:
        job_id = add_ingest(session, workspace_id).id

    def write(number):
        with database.unit_of_work() as session:
            events.append(session, session.get(Job, job_id), "log", {"number": number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    with database.reading() as session:
        seqs = session.scalars(select(Event.seq).where(Event.stream_id == job_id).order_by(Event.seq)).all()
        row = session.get(Job, job_id)
    assert seqs == list(range(1, 42))
    assert (row.event_seq, row.version) == (41, 42)


def test_a_number_that_was_rolled_back_is_used_again(database, workspace_id):
    with database.unit_of_work() as session:
        job_id = add_ingest(session, workspace_id).id
    with Session(database.engine) as session:  # never committed
        assert events.append(session, session.get(Job, job_id), "log", {}) == 2
    with database.unit_of_work() as session:
        assert events.append(session, session.get(Job, job_id), "log", {}) == 2


def test_characters_that_postgres_refuses_are_left_out(database, workspace_id):
    with database.unit_of_work() as session:
        job = add_ingest(session, workspace_id)
        events.append(session, job, "log", {"a\x00b": ["c\x00", {"d": "\x00e"}], "n": 1})
        events.advance(session, job, done=1, message="f\x00g")
    with database.reading() as session:
        rows = session.scalars(select(Event).where(Event.stream_id == job.id).order_by(Event.seq)).all()
        assert session.get(Job, job.id).progress_message == "fg"
    assert rows[1].data == {"ab": ["c", {"d": "e"}], "n": 1}


class Stream:
    """As much of a job as progress needs."""

    progress_done, progress_total, progress_unit, progress_message, progress_eta_s = 0, None, None, None, None


reports = st.tuples(
    st.integers(0, 20), st.none() | st.integers(0, 20), st.sampled_from(["images", "layers", None])
)


@given(st.lists(reports, max_size=20))
def test_the_finished_fraction_never_goes_back(told):
    job, last = Stream(), None
    original = events.append
    events.append = lambda *_, **__: 0
    try:
        for done, total, unit in told:
            events.advance(None, job, done=done, total=total, unit=unit, message=f"{done}")
            fraction = events.progress_of(job)["fraction"]
            assert last is None or fraction is not None
            assert last is None or fraction >= last
            assert job.progress_message == f"{done}"
            last = fraction
    finally:
        events.append = original


@pytest.mark.parametrize(
    ("done", "total", "fraction"),
    [(0, None, None), (5, None, None), (0, 0, None), (0, 4, 0.0), (1, 4, 0.25), (9, 4, 1.0)],
)
def test_the_fraction(done, total, fraction):
    job = Stream()
    job.progress_done, job.progress_total = done, total
    assert events.progress_of(job)["fraction"] == fraction
