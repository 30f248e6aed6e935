"""Deliveries to webhooks: written with the end that they tell of, taken by one sender at a time, lost by none."""

from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.engine import Database, database_now
from app.db.migrate import upgrade
from app.db.tables import Delivery, Job, Webhook
from app.ids import new_id
from app.queue import deliveries, leases, notices
from app.queue.deliveries import PAUSES_S, Outcome
from tests.queue_records import add_ingest, add_workspace

DAY_S = 24 * 3600


@pytest.fixture
def database(database_url):
    upgrade(database_url)
    made = Database(database_url)
    yield made
    made.dispose()


@pytest.fixture
def webhook(database):
    with database.unit_of_work() as session:
        made = Webhook(
            id=new_id("wh"),
            workspace_id=add_workspace(session),
            url="https://example.com/",
            events=["dataset", "job"],
            secret="whsec_AAAA",
            created_at=database_now(session),
        )
        session.add(made)
    return made


def told(database) -> list[Delivery]:
    with database.reading() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.id)))


def test_an_end_that_is_not_committed_tells_nothing(database, webhook):
    with database.unit_of_work() as session:
        add_ingest(session, webhook.workspace_id)
        job_id = session.scalars(select(Job.id)).one()
    with database.unit_of_work() as session:
        claim = leases.claim(session, job_id, "w", lease_s=60)
    with Session(database.engine) as session:
        leases.finish(session, claim)
        session.flush()
        assert session.scalars(select(Delivery)).all()
        session.rollback()
    assert told(database) == []
    with database.unit_of_work() as session:
        leases.finish(session, claim)
    assert {one.type for one in told(database)} == {"job.succeeded", "dataset.ready"}


def test_whoever_takes_one_and_is_killed_leaves_it_to_others(database, webhook):
    with database.unit_of_work() as session:
        notices.add(session, webhook, "webhook.test", {}, now=database_now(session))
    with database.unit_of_work() as session:
        first = deliveries.take(session, webhook.id)
    with database.unit_of_work() as session:
        assert deliveries.take(session, webhook.id) is None, "somebody sends it"
        assert deliveries.waiting(session) == []
        taken = session.get(Delivery, first.id)
        assert taken.not_before <= database_now(session) + timedelta(seconds=deliveries.TAKEN_S)
        taken.not_before -= timedelta(seconds=deliveries.TAKEN_S)
    with database.unit_of_work() as session:
        assert deliveries.waiting(session) == [webhook.id]
        again = deliveries.take(session, webhook.id)
    assert (again.id, again.body) == (first.id, first.body)


def test_it_is_tried_for_a_day_and_then_failed(database, webhook):
    assert 0.9 * DAY_S < sum(PAUSES_S) < 1.1 * DAY_S
    with database.unit_of_work() as session:
        id = notices.add(session, webhook, "webhook.test", {}, now=database_now(session)).id
    for attempt in range(len(PAUSES_S) + 1):
        with database.unit_of_work() as session:
            parcel = deliveries.take(session, webhook.id)
            deliveries.note(session, parcel, Outcome(None, "refused\x00"), give_up_s=1e9)
            row = session.get(Delivery, id)
            assert (row.attempts, row.answer) == (attempt + 1, "refused")
            if row.state == "pending":
                ahead = (row.not_before - database_now(session)).total_seconds()
                assert ahead == pytest.approx(PAUSES_S[attempt], abs=2)
                row.not_before = database_now(session)
    assert (told(database)[0].state, told(database)[0].ended_at is not None) == ("failed", True)


def test_what_was_deleted_while_it_was_sent_is_no_fault(database, webhook):
    with database.unit_of_work() as session:
        notices.add(session, webhook, "webhook.test", {}, now=database_now(session))
    with database.unit_of_work() as session:
        parcel = deliveries.take(session, webhook.id)
    with database.unit_of_work() as session:
        session.delete(session.get(Delivery, parcel.id))
    with database.unit_of_work() as session:
        deliveries.note(session, parcel, Outcome(200, ""), give_up_s=1)
