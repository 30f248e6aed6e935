"""Claims, beats and ends of jobs, on both databases."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from app.db.tables import Dataset, Event, Job, Outbox
from app.errors import CandidateFailed, TransientFailure
from app.queue import leases
from app.queue.states import JobState
from tests import control
from tests.queue_records import add_ingest, add_workspace, emptied, let_lapse


@pytest.fixture
def job_id(database, workspace_id):
    with database.unit_of_work() as session:
        return add_ingest(session, workspace_id).id


def claim(database, job_id, worker="w1", lease_s=60.0):
    with database.unit_of_work() as session:
        return leases.claim(session, job_id, worker, lease_s=lease_s)


def job(database, job_id) -> Job:
    with database.reading() as session:
        return session.get(Job, job_id)


def do(database, action, *arguments, **options):
    with database.unit_of_work() as session:
        return action(session, *arguments, **options)


def test_a_claim_takes_the_job_and_its_bell(database, job_id):
    held = claim(database, job_id)
    assert held.job.attempt == 1
    row = job(database, job_id)
    assert (row.state, row.token, row.worker) == (JobState.RUNNING, held.token, "w1")
    with database.reading() as session:
        assert session.scalars(select(Outbox)).all() == []


def test_there_is_nothing_to_claim_twice_nor_of_an_unknown_job(database, job_id):
    claim(database, job_id)
    assert claim(database, job_id, "w2") is None
    assert claim(database, "job_unknown") is None


def test_of_many_that_claim_at_once_one_gets_it(database, job_id):
    together = threading.Barrier(8)

    def race(number):
        together.wait()
        return claim(database, job_id, f"w{number}")

    with ThreadPoolExecutor(8) as pool:
        held = [one for one in pool.map(race, range(8)) if one is not None]
    assert len(held) == 1
    assert job(database, job_id).worker == held[0].worker


def test_finishing_writes_the_result_and_makes_the_dataset_ready(database, job_id):
    held = claim(database, job_id)

    def write(session):
        session.get(Dataset, held.job.resource_id).digest = "d" * 64

    do(database, leases.finish, held, write)
    with database.reading() as session:
        dataset = session.get(Dataset, held.job.resource_id)
    assert (dataset.state, dataset.digest, dataset.version > 1) == ("ready", "d" * 64, True)
    row = job(database, job_id)
    assert (row.state, row.token, row.lease_until) == (JobState.SUCCEEDED, None, None)
    assert row.finished_at >= row.started_at >= row.created_at


def test_a_lapsed_job_can_be_claimed_again_and_the_sleeper_is_fenced_off(database, job_id):
    sleeper = claim(database, job_id)
    let_lapse(database, job_id)
    second = claim(database, job_id, "w2")
    assert second.job.attempt == 2
    assert not do(database, leases.beat, sleeper).held
    assert not do(database, leases.look, sleeper).held
    assert not do(database, leases.report, sleeper, leases.News(progress={"done": 9, "total": 9})).held
    touched = []
    for action, more in (
        (leases.finish, [touched.append]),
        (leases.cancelled, []),
        (leases.fail, [{"code": "x"}]),
        (leases.release, []),
    ):
        with pytest.raises(leases.LeaseLost):
            do(database, action, sleeper, *more)
    assert touched == []
    row = job(database, job_id)
    assert (row.token, row.progress_done) == (second.token, 0)
    do(database, leases.finish, second)


def test_what_a_fenced_off_worker_would_write_is_rolled_back(database, job_id):
    held = claim(database, job_id)

    def write(session):
        session.get(Dataset, held.job.resource_id).digest = "d" * 64
        session.flush()
        raise leases.LeaseLost("too late")

    with pytest.raises(leases.LeaseLost):
        do(database, leases.finish, held, write)
    with database.reading() as session:
        assert session.get(Dataset, held.job.resource_id).digest is None


def test_a_beat_holds_the_lease_and_hears_of_a_cancellation(database, job_id):
    held = claim(database, job_id, lease_s=5)
    before = job(database, job_id).lease_until
    assert do(database, leases.beat, held) == leases.Beat(held=True, cancel=False)
    assert job(database, job_id).lease_until > before
    do(database, control.cancel, job_id)
    for hear in (leases.beat, leases.look):
        assert do(database, hear, held) == leases.Beat(held=True, cancel=True)
    do(database, leases.cancelled, held)
    assert job(database, job_id).state == JobState.CANCELLED


def test_a_beat_that_comes_late_saves_a_job_that_nobody_took(database, job_id):
    held = claim(database, job_id)
    let_lapse(database, job_id)
    assert do(database, leases.beat, held).held
    assert leases.requeue_lapsed(database) == []


def test_silence_puts_a_job_back_until_its_attempts_are_used_up(database, job_id):
    for attempt in (1, 2, 3):
        assert claim(database, job_id, f"w{attempt}").job.attempt == attempt
        let_lapse(database, job_id)
        assert leases.requeue_lapsed(database) == [job_id]
    row = job(database, job_id)
    assert (row.state, row.error["code"]) == (JobState.FAILED, "attempts_exhausted")
    assert "w3" in row.error["detail"]
    assert claim(database, job_id) is None


def test_a_passing_fault_is_tried_again_later_and_the_last_one_is_told(database, job_id):
    error = TransientFailure("the disk was full").to_dict()
    for attempt in (1, 2):
        state = do(database, leases.fail, claim(database, job_id), error, retry_s=10.0)
        assert state == JobState.QUEUED
        row = job(database, job_id)
        assert row.error == error
        assert claim(database, job_id) is None, "not before its time"
        waits = (row.not_before - row.created_at).total_seconds()
        assert 10.0 * 2 ** (attempt - 1) <= waits < 10.0 * 2 ** (attempt - 1) + 5
        _make_due(database, job_id)
    assert do(database, leases.fail, claim(database, job_id), error, retry_s=10.0) == JobState.FAILED
    assert "the disk was full" in job(database, job_id).error["detail"]


def test_a_lasting_fault_is_not_tried_again(database, job_id):
    error = CandidateFailed("no such layer").to_dict()
    assert do(database, leases.fail, claim(database, job_id), error) == JobState.FAILED
    assert job(database, job_id).error == error


def test_a_released_job_is_queued_at_once_and_its_attempt_does_not_count(database, job_id):
    do(database, leases.release, claim(database, job_id))
    assert claim(database, job_id).job.attempt == 1


def test_a_job_that_was_asked_to_stop_is_never_tried_again(database, workspace_id):
    endings = [
        lambda session, held: leases.release(session, held),
        lambda session, held: leases.fail(session, held, {"code": "x"}, retry_s=1.0),
        lambda session, held: leases.lost(session, held.job.id, held.worker),
    ]
    for end in endings:
        with database.unit_of_work() as session:
            id = add_ingest(session, workspace_id).id
        held = claim(database, id)
        do(database, control.cancel, id)
        do(database, end, held)
        assert job(database, id).state == JobState.CANCELLED


def test_a_dead_process_gives_its_own_job_back_and_no_other(database, job_id):
    claim(database, job_id, "w1")
    assert not do(database, leases.lost, job_id, "w2")
    assert do(database, leases.lost, job_id, "w1")
    assert not do(database, leases.lost, job_id, "w1")
    assert job(database, job_id).state == JobState.QUEUED


def test_every_change_is_in_the_events_in_order(database, job_id):
    do(database, leases.release, claim(database, job_id))
    do(database, leases.finish, claim(database, job_id))
    with database.reading() as session:
        rows = session.scalars(select(Event).where(Event.stream_id == job_id).order_by(Event.seq)).all()
        version = session.get(Job, job_id).version
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    assert [row.data["state"] for row in rows] == ["queued", "running", "queued", "running", "succeeded"]
    assert version == len(rows) + 1


def _make_due(database, job_id):
    with database.unit_of_work() as session:
        row = session.get(Job, job_id)
        row.not_before = row.created_at


def test_a_worker_frozen_in_a_transaction_holds_up_its_own_job_alone(lasting_postgres_database):
    database = emptied(lasting_postgres_database)
    with database.unit_of_work() as session:
        workspace_id = add_workspace(session)
        frozen, other = (add_ingest(session, workspace_id).id for _ in range(2))
    held = claim(database, frozen)
    claim(database, other)
    for id in (frozen, other):
        let_lapse(database, id)
    with database.unit_of_work() as session:
        leases.hold(session, held)
        assert leases.requeue_lapsed(database) == [other]
    assert leases.requeue_lapsed(database) == [frozen]


def test_attempts_before_a_headway_no_longer_count(database, job_id):
    """A long training on hosts that come and go gets further with each: only attempts that got nowhere wear it out."""
    for _ in range(5):
        held = claim(database, job_id)
        before = job(database, job_id)
        do(database, leases.headway, held)
        after = job(database, job_id)
        assert after.version > before.version or after.attempt == before.attempt, "an ETag that hides it"
        let_lapse(database, job_id)
        leases.requeue_lapsed(database)
        assert job(database, job_id).state == JobState.QUEUED
    for _ in range(2):
        claim(database, job_id)
        let_lapse(database, job_id)
        leases.requeue_lapsed(database)
    assert job(database, job_id).state == JobState.FAILED


def test_who_lost_the_lease_makes_no_headway(database, job_id):
    late = claim(database, job_id)
    let_lapse(database, job_id)
    claim(database, job_id, "w2")
    with pytest.raises(leases.LeaseLost):
        do(database, leases.headway, late)
