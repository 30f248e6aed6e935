"""Whatever the broker does - repeats, forgets, refuses, falls silent - every job runs, and its result is written once."""

import shutil
import threading
import time

import pytest
import redis

from app.db.tables import Outbox
from app.errors import Unavailable
from app.queue.broker import Broker, queue_names
from app.queue.outbox import relay_once
from app.queue.relay import Relay
from app.queue.states import JobState
from tests.faults.deployment import deployed
from tests.faults.network import wired

pytestmark = pytest.mark.slow


def test_a_message_delivered_five_times_does_the_work_once(deployment):
    job_id = deployment.add()
    broker = Broker(deployment.settings)
    for _ in range(5):
        broker.ring(job_id, "ingest", "cpu")
    for _ in range(2):
        deployment.worker()
    deployment.until_succeeded(job_id)
    after = deployment.add()
    deployment.until_succeeded(after)
    assert len(deployment.notes(job_id, "started")) == 1
    assert deployment.resource(job_id).summary == {"finished_by": 1, "times": 1}


def test_a_flushed_broker_loses_no_job(deployment):
    waiting = [deployment.add() for _ in range(5)]
    broker = Broker(deployment.settings)
    assert relay_once(deployment.database, broker, bell_s=deployment.settings.bell_s) == 5
    forgotten = _flush(deployment)
    assert forgotten >= 5
    deployment.worker()
    for job_id in waiting:
        deployment.until_succeeded(job_id)


def _flush(deployment) -> int:
    """Delete every message; returns how many there were."""
    url = deployment.settings.broker_url
    if url:
        client = redis.Redis.from_url(url)
        prefix = deployment.settings.queue_prefix
        count = sum(client.llen(prefix + name) for name in queue_names(deployment.settings))
        client.delete(*client.keys(prefix + "*"))
        return count
    spool = deployment.settings.home / "broker"
    count = len(list(spool.rglob("*.msg")))
    shutil.rmtree(spool)
    return count


def test_rabbitmq(tmp_path, postgres_url, amqp_url):
    with deployed(tmp_path, postgres_url, amqp_url) as deployment:
        worker = deployment.worker()
        job_id = deployment.add(steps=5)
        deployment.until_noted(job_id, "stage working")
        worker.kill()
        deployment.worker()
        assert deployment.until_succeeded(job_id).attempt == 2
        ranking_id = deployment.add_ranking({}, {"do": "fail_once"})
        deployment.until(
            lambda: deployment.ranking(ranking_id)[0].state == JobState.SUCCEEDED, "the ranking ends"
        )
        _remove_queues(deployment)


def _remove_queues(deployment) -> None:
    for worker in deployment.workers:
        worker.kill()
    channel = Broker(deployment.settings)._app.connection_for_write().default_channel
    for name in queue_names(deployment.settings):
        channel.queue_delete(name)


@pytest.mark.parametrize("service", ["redis", "amqp"])
@pytest.mark.parametrize("fault", ["cut", "silent"])
def test_a_dead_broker_blocks_nobody_and_the_job_runs_when_it_is_back(
    tmp_path, sqlite_url, request, service, fault
):
    server = request.getfixturevalue(f"{service}_url")
    with (
        wired(server, {"redis": 6379, "amqp": 5672}[service]) as (wire, url),
        deployed(tmp_path, sqlite_url, url) as deployment,
    ):
        wire.set(fault)
        relay = Relay(deployment.database, Broker(deployment.settings), relay_s=0.1, bell_s=1.0)
        relay.start()
        added = []
        for _ in range(3):
            began = time.monotonic()
            added.append(deployment.add())
            relay.wake()
            # the point is not speed: a request that waited for the broker would take seconds
            assert time.monotonic() - began < 1.0
        deployment.until(lambda: relay.last_error, "the relay says that the broker is away")
        wire.set("cut")
        wire.set("forward")
        deployment.worker()
        for job_id in added:
            deployment.until_succeeded(job_id)
        relay.stop()
        if service == "amqp":
            _remove_queues(deployment)


@pytest.mark.parametrize("service", ["redis", "amqp"])
def test_a_broker_that_falls_silent_between_two_bells(tmp_path, sqlite_url, request, service):
    server = request.getfixturevalue(f"{service}_url")
    with (
        wired(server, {"redis": 6379, "amqp": 5672}[service]) as (wire, url),
        deployed(tmp_path, sqlite_url, url) as deployment,
    ):
        broker = Broker(deployment.settings)
        deployment.add()
        assert relay_once(deployment.database, broker) == 1
        wire.set("silent")
        deployment.add()
        outcome: list[object] = []
        thread = threading.Thread(target=lambda: outcome.append(_ring(deployment, broker)), daemon=True)
        thread.start()
        thread.join(30)
        assert outcome, "ringing never came back"
        assert isinstance(outcome[0], Unavailable)
        with deployment.database.reading() as session:
            assert sorted(row.rings for row in session.query(Outbox)) == [0, 1]
        wire.set("cut")
        wire.set("forward")
        deployment.until(lambda: _ring(deployment, broker) == 1, "the bell is rung after all")
        if service == "amqp":
            _remove_queues(deployment)


def _ring(deployment, broker) -> int | Unavailable:
    try:
        return relay_once(deployment.database, broker)
    except Unavailable as failure:
        return failure


def test_a_worker_without_its_broker_still_sweeps_and_works_when_it_is_back(
    tmp_path, postgres_url, redis_url
):
    with wired(redis_url, 6379) as (wire, url), deployed(tmp_path, postgres_url, url) as deployment:
        worker = deployment.worker()
        job_id = deployment.add(steps=20)
        deployment.until_noted(job_id, "stage fetching")
        wire.set("cut")
        assert deployment.until_succeeded(job_id).attempt == 1, "a running job needs no broker"
        later = deployment.add()
        deployment.until(lambda: "bells wait in the outbox" in worker.log.read_text(), "the relay notices")
        wire.set("forward")
        deployment.until_succeeded(later)


def test_a_database_that_is_away_for_a_while_costs_nothing(tmp_path, postgres_url, redis_url):
    with (
        wired(postgres_url, 5432) as (wire, url),
        deployed(tmp_path, url, redis_url, lease_s=3) as deployment,
    ):
        deployment.worker()
        job_id = deployment.add(steps=8)
        deployment.until_noted(job_id, "stage storing")
        wire.set("cut")
        deployment.until_noted(job_id, "computed")
        time.sleep(2)
        wire.set("forward")
        job = deployment.until_succeeded(job_id)
        assert job.attempt == 1
        assert len(deployment.notes(job_id, "started")) == 1
