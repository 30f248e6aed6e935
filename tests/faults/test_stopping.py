"""Stopping: jobs that are cancelled, workers that are told to end, handlers that do not listen."""

import signal
import time

import pytest

from app.queue.states import JobState
from tests import control
from tests.faults.deployment import deployed

pytestmark = pytest.mark.slow


def test_cancel_before_the_start_and_at_each_stage(deployment):
    queued = deployment.add()
    with deployment.database.unit_of_work() as session:
        assert control.cancel(session, queued).state == JobState.CANCELLED
    deployment.worker()
    for steps, stage in ((50, "fetching"), (10, "working"), (10, "storing")):
        job_id = deployment.add(steps=steps)
        deployment.until_noted(job_id, f"stage {stage}")
        with deployment.database.unit_of_work() as session:
            assert control.cancel(session, job_id).state == JobState.CANCELLING
        assert deployment.until_state(job_id, JobState.CANCELLED, patience_s=10).lease_until is None
        assert not deployment.notes(job_id, "computed")
        assert deployment.resource(job_id).state == "invalid"
        assert deployment.resource(job_id).error["code"] == "cancelled"
    assert not deployment.notes(queued), "its message finds nothing to do"
    with deployment.database.unit_of_work() as session:
        control.retry(session, queued)
    deployment.until_succeeded(queued)


def test_cancelling_a_ranking_in_the_middle(embedded):
    embedded.worker()
    ranking_id = embedded.add_ranking({}, {"steps": 50}, {"steps": 50})
    _, candidates = embedded.ranking(ranking_id)
    embedded.until_noted(candidates[1].job_id, "stage fetching")
    with embedded.database.unit_of_work() as session:
        control.cancel_ranking(session, ranking_id)
    embedded.until(lambda: embedded.ranking(ranking_id)[0].state == JobState.CANCELLED, "the ranking ends")
    ranking, candidates = embedded.ranking(ranking_id)
    assert [candidate.state for candidate in candidates] == ["succeeded", "cancelled", "cancelled"]
    assert ranking.result is None
    assert embedded.job(ranking.job_id).attempt == 0
    assert ranking.finished_at is not None


def test_a_handler_that_does_not_listen_is_ended_with_its_process(embedded):
    embedded.worker()
    deaf, good = embedded.add(do="deaf"), embedded.add()
    embedded.until_noted(deaf, "started")
    with embedded.database.unit_of_work() as session:
        control.cancel(session, deaf)
    embedded.until_state(deaf, JobState.CANCELLED)
    embedded.until_succeeded(good)


def test_a_job_past_its_time_limit_fails_and_is_not_tried_again(tmp_path, sqlite_url):
    with deployed(tmp_path, sqlite_url, "", intake_time_limit_s=1.5) as deployment:
        deployment.worker()
        deaf, slow, good = deployment.add(do="deaf"), deployment.add(steps=50), deployment.add()
        for job_id in (deaf, slow):
            job = deployment.until_ended(job_id)
            assert (job.state, job.attempt, job.error["code"]) == (JobState.FAILED, 1, "time_limit_exceeded")
        deployment.until_succeeded(good)


def hands_back(deployment, do: str) -> None:
    worker = deployment.worker()
    job_id = deployment.add(do=do, steps=100)
    deployment.until_noted(job_id, "started")
    worker.send(signal.SIGTERM)
    deployment.until_state(job_id, JobState.QUEUED, patience_s=10)
    assert worker.process.wait(20) == 0
    assert deployment.job(job_id).attempt == 0, "the attempt that was broken off does not count"


def test_sigterm_hands_the_job_back_at_once_and_the_worker_ends(deployment):
    hands_back(deployment, "work")


def test_sigterm_ends_a_worker_whose_handler_does_not_listen(embedded):
    hands_back(embedded, "deaf")


def test_sigterm_to_the_whole_group_loses_nothing(deployment):
    worker = deployment.worker()
    job_id = deployment.add(steps=20)
    deployment.until_noted(job_id, "started")
    worker.send_all(signal.SIGTERM)
    assert worker.process.wait(20) == 0
    deployment.until_state(job_id, JobState.QUEUED, patience_s=10)
    deployment.worker()
    deployment.until_succeeded(job_id)


def test_an_idle_worker_ends_at_once(embedded):
    worker = embedded.worker()
    embedded.until_succeeded(embedded.add())
    time.sleep(0.5)
    worker.send(signal.SIGTERM)
    assert worker.process.wait(20) == 0


def test_failures(embedded):
    embedded.worker()
    once = embedded.add(do="fail_once")
    for do, attempts, code in (
        ("raise", 3, "attempts_exhausted"),
        ("exit", 3, "attempts_exhausted"),
        ("refuse", 1, "candidate_failed"),
    ):
        job_id = embedded.add(do=do)
        job = embedded.until_ended(job_id)
        assert (job.state, job.attempt, job.error["code"]) == (JobState.FAILED, attempts, code)
        dataset = embedded.resource(job_id)
        assert (dataset.state, dataset.error) == ("invalid", job.error)
    assert embedded.until_succeeded(once).attempt == 2
