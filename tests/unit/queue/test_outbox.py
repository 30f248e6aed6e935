"""Bells: rung once when due, again when nobody answers, and never while a lock is held."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from app.db.engine import database_now
from app.db.tables import Job, Outbox
from app.errors import Unavailable
from app.queue import leases, outbox
from app.queue.relay import Relay
from tests import control
from tests.queue_records import add_ingest


class Bells:
    """A broker that remembers, and refuses after `takes` bells."""

    def __init__(self, takes: int = 10**9) -> None:
        self.rung: list[tuple[str, str, str]] = []
        self.takes = takes

    def ring(self, job_id: str, kind: str, queue: str) -> None:
        if len(self.rung) >= self.takes:
            raise Unavailable("no more")
        self.rung.append((job_id, kind, queue))


def add(database, workspace_id, count=1) -> list[str]:
    with database.unit_of_work() as session:
        return [add_ingest(session, workspace_id).id for _ in range(count)]


def bells(database) -> list[Outbox]:
    with database.reading() as session:
        return list(session.scalars(select(Outbox).order_by(Outbox.id)))


def make_due(database) -> None:
    with database.unit_of_work() as session:
        session.execute(update(Outbox).values(not_before=database_now(session) - timedelta(seconds=1)))


def test_bells_ring_oldest_first_and_not_again_at_once(database, workspace_id):
    ids = add(database, workspace_id, 3)
    broker = Bells()
    assert outbox.relay_once(database, broker, limit=2) == 2
    assert outbox.relay_once(database, broker, limit=2) == 1
    assert outbox.relay_once(database, broker) == 0
    assert broker.rung == [(id, "ingest", "cpu") for id in ids]


def test_a_bell_that_nobody_answers_rings_ever_more_rarely(database, workspace_id):
    add(database, workspace_id)
    broker, pauses = Bells(), []
    for _ in range(7):
        make_due(database)
        outbox.relay_once(database, broker, bell_s=30.0)
        with database.reading() as session:
            pauses.append(round((bells(database)[0].not_before - database_now(session)).total_seconds()))
    assert len(broker.rung) == 7
    expected = [30, 60, 120, 240, 480, 600, 600]
    assert all(abs(pause - wanted) <= 2 for pause, wanted in zip(pauses, expected, strict=True))


def test_what_the_broker_refuses_stays_due_since_it_was(database, workspace_id):
    ids = add(database, workspace_id, 3)
    due = {bell.id: bell.not_before for bell in bells(database)}
    with pytest.raises(Unavailable):
        outbox.relay_once(database, Bells(takes=1))
    with database.reading() as session:
        now = database_now(session)
    waits = [(bell.not_before - now).total_seconds() for bell in bells(database)]
    assert waits[0] > 20
    assert all(wait <= 0 for wait in waits[1:])
    assert [bell.not_before for bell in bells(database)[1:]] == list(due.values())[1:]
    assert [bell.rings for bell in bells(database)] == [1, 0, 0]
    make_due(database)
    again = Bells()
    outbox.relay_once(database, again)
    assert [job_id for job_id, _, _ in again.rung] == ids


def test_who_rings_holds_no_lock(database, workspace_id):
    [job_id] = add(database, workspace_id)

    class Slow:
        def ring(self, job_id: str, kind: str, queue: str) -> None:
            with database.unit_of_work() as session:
                assert leases.claim(session, job_id, "w", lease_s=60) is not None

    assert outbox.relay_once(database, Slow()) == 1
    assert bells(database) == []
    with database.reading() as session:
        assert session.get(Job, job_id).state == "running"


def test_a_bell_goes_with_its_job_and_comes_back_with_it(database, workspace_id):
    [claimed, cancelled] = add(database, workspace_id, 2)
    with database.unit_of_work() as session:
        held = leases.claim(session, claimed, "w", lease_s=60)
        control.cancel(session, cancelled)
    assert bells(database) == []
    with database.unit_of_work() as session:
        leases.fail(session, held, {"code": "x"}, retry_s=20.0)
        control.retry(session, cancelled)
    waiting = {bell.job_id: bell for bell in bells(database)}
    assert set(waiting) == {claimed, cancelled}
    assert waiting[claimed].not_before - waiting[cancelled].not_before > timedelta(seconds=19)
    broker = Bells()
    outbox.relay_once(database, broker)
    assert [job_id for job_id, _, _ in broker.rung] == [cancelled]


def test_many_relays_ring_each_bell_once(database, workspace_id):
    ids = add(database, workspace_id, 30)
    broker = Bells()
    together = threading.Barrier(4)

    def relay(_):
        together.wait()
        while outbox.relay_once(database, broker, limit=3):
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(relay, range(4)))
    assert sorted(job_id for job_id, _, _ in broker.rung) == sorted(ids)


def test_the_relay_s_thread_rings_when_woken_and_outlives_a_dead_broker(database, workspace_id):
    heard = threading.Event()

    class Moody:
        broken = True

        def ring(self, job_id: str, kind: str, queue: str) -> None:
            if self.broken:
                self.broken = False
                raise Unavailable("not now")
            heard.set()

    relay = Relay(database, Moody(), relay_s=0.05)
    relay.start()
    add(database, workspace_id)
    relay.wake()
    assert heard.wait(30)
    relay.stop()
    assert not relay._thread.is_alive()


def test_a_broker_that_came_back_is_told_again_what_it_may_have_forgotten(database, workspace_id):
    class Forgetful:
        def __init__(self) -> None:
            self.rung: list[str] = []
            self.away = threading.Event()
            self.refused = threading.Event()

        def ring(self, job_id: str, kind: str, queue: str) -> None:
            if self.away.is_set():
                self.refused.set()
                raise Unavailable("not now")
            self.rung.append(job_id)

    def rung(times: int) -> bool:
        until = time.monotonic() + 30
        while broker.rung.count(early) < times and time.monotonic() < until:
            time.sleep(0.02)
        return broker.rung.count(early) == times

    broker = Forgetful()
    relay = Relay(database, broker, relay_s=0.05, bell_s=3600)
    relay.start()
    (early,) = add(database, workspace_id)
    assert rung(1)
    broker.away.set()
    (late,) = add(database, workspace_id)
    assert broker.refused.wait(30)
    broker.away.clear()
    assert rung(2), "its own next ring is an hour away"
    assert late in broker.rung
    relay.stop()
