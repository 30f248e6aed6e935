"""Killing and freezing workers in the middle of a job loses nothing and writes nothing twice."""

import os
import signal

import pytest

from app.queue.states import JobState
from tests.faults.deployment import deployed

pytestmark = pytest.mark.slow


def test_a_job_runs_end_to_end(deployment):
    deployment.worker()
    job_id = deployment.add()
    job = deployment.until_ended(job_id)
    assert (job.state, job.attempt, job.error) == (JobState.SUCCEEDED, 1, None)
    assert deployment.resource(job_id).state == "ready"
    assert deployment.resource(job_id).summary == {"finished_by": 1, "times": 1}
    seqs = [event.seq for event in deployment.events(job_id)]
    assert seqs == list(range(1, len(seqs) + 1))
    stages = [event.data["stage"] for event in deployment.events(job_id) if event.data.get("stage")]
    assert stages == ["fetching", "working", "storing"]


def test_killing_the_child_in_the_middle_of_a_job(deployment):
    deployment.worker()
    job_id = deployment.add(steps=5)
    pid = int(deployment.until_noted(job_id, "started").split()[-1])
    deployment.until_noted(job_id, "stage working")
    os.kill(pid, signal.SIGKILL)
    job = deployment.until_ended(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert deployment.resource(job_id).summary == {"finished_by": 2, "times": 1}


def test_killing_an_idle_child(deployment):
    deployment.worker()
    first = deployment.add()
    deployment.until_succeeded(first)
    os.kill(int(deployment.notes(first, "started")[0].split()[-1]), signal.SIGKILL)
    deployment.until_succeeded(deployment.add())


def test_killing_the_whole_worker_in_the_middle_of_a_job_then_starting_another(deployment):
    worker = deployment.worker()
    job_id, waiting = deployment.add(steps=5), deployment.add()
    deployment.until_noted(job_id, "stage working")
    worker.send_all(signal.SIGKILL)
    worker.process.wait(30)
    assert deployment.job(job_id).state == JobState.RUNNING
    deployment.worker()
    for one, attempt in ((job_id, 2), (waiting, 1)):
        assert deployment.until_ended(one).state == JobState.SUCCEEDED
        assert deployment.resource(one).summary == {"finished_by": attempt, "times": 1}


def test_a_worker_whose_parent_dies_takes_its_child_along(embedded):
    worker = embedded.worker()
    job_id = embedded.add(steps=20)
    pid = int(embedded.until_noted(job_id, "started").split()[-1])
    worker.send(signal.SIGKILL)
    embedded.until(lambda: not os.path.exists(f"/proc/{pid}") or _is_zombie(pid), "the child is gone")


def test_a_worker_that_slept_past_its_lease_cannot_write(deployment):
    sleeper = deployment.worker()
    job_id = deployment.add(steps=5)
    deployment.until_noted(job_id, "stage storing")
    sleeper.send_all(signal.SIGSTOP)
    deployment.worker()
    assert deployment.until_ended(job_id).state == JobState.SUCCEEDED
    sleeper.send_all(signal.SIGCONT)
    after = deployment.add()
    deployment.until_ended(after)
    deployment.until(
        lambda: "the lease is lost" in sleeper.log.read_text(), "the sleeper hears that it lost its lease"
    )
    assert deployment.resource(job_id).summary == {"finished_by": 2, "times": 1}
    assert deployment.job(job_id).attempt == 2


def test_a_job_that_kills_its_process_fails_after_its_attempts_and_the_worker_lives(embedded):
    embedded.worker()
    poison, good = embedded.add(do="die"), embedded.add()
    job = embedded.until_ended(poison)
    assert (job.state, job.attempt, job.error["code"]) == (JobState.FAILED, 3, "attempts_exhausted")
    assert "died" in job.error["detail"] or "silent" in job.error["detail"]
    assert embedded.resource(poison).state == "invalid"
    assert embedded.until_ended(good).state == JobState.SUCCEEDED
    assert len(embedded.notes(poison, "started")) == 3


def test_a_dead_child_is_noticed_long_before_its_lease_lapses(tmp_path, sqlite_url):
    with deployed(tmp_path, sqlite_url, "", lease_s=600) as deployment:
        deployment.worker()
        job_id = deployment.add(steps=5)
        pid = int(deployment.until_noted(job_id, "started").split()[-1])
        os.kill(pid, signal.SIGKILL)
        assert deployment.until_succeeded(job_id).attempt == 2


def test_a_ranking_survives_kills_poison_and_bad_candidates(deployment):
    worker = deployment.worker()
    ranking_id = deployment.add_ranking({}, {"do": "refuse"}, {"do": "die"}, {"steps": 5})
    _, candidates = deployment.ranking(ranking_id)
    deployment.until_noted(candidates[0].job_id, "stage fetching")
    worker.kill()
    deployment.worker()
    deployment.until(
        lambda: deployment.ranking(ranking_id)[0].state == JobState.SUCCEEDED, "the ranking ends"
    )
    _, candidates = deployment.ranking(ranking_id)
    assert [candidate.state for candidate in candidates] == ["succeeded", "failed", "failed", "succeeded"]
    assert [candidate.error and candidate.error["code"] for candidate in candidates] == [
        None,
        "candidate_failed",
        "attempts_exhausted",
        None,
    ]
    states = [event.data.get("state") for event in deployment.events(ranking_id) if event.kind == "state"]
    assert [state for state in states if state] == ["running", "running", "succeeded"]


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] == "Z"
