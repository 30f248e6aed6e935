"""How an attempt ends, whatever its handler does."""

import subprocess
import sys

import pytest

from app.db.tables import Dataset
from app.errors import CandidateFailed, StorageFull
from app.queue import control
from app.queue.states import JobKind, JobState
from tests.queue_records import let_lapse
from worker import tasks
from worker.step import Cancelled


@pytest.fixture
def run(bench, monkeypatch):
    """One attempt at a job with a handler of the test's."""

    def attempt(handler, job_id=None):
        monkeypatch.setattr(tasks, "_handler", lambda kind: handler)
        claim = bench.claim(job_id)
        with bench.step(claim) as step:
            tasks.attempt(step, claim)
        return bench.job(claim.job.id)

    return attempt


def raising(failure):
    def handler(step, job):
        raise failure

    return handler


def test_success_writes_what_the_handler_returned(bench, run):
    def handler(step, job):
        step.progress(1, 2, "images")
        return lambda session: setattr(session.get(Dataset, job.resource_id), "format", "coco")

    job = run(handler)
    assert (job.state, job.progress_done, job.progress_total) == (JobState.SUCCEEDED, 2, 2)
    with bench.database.reading() as session:
        assert session.get(Dataset, job.resource_id).format == "coco"


def test_a_handler_may_have_nothing_to_write(run):
    assert run(lambda step, job: None).state == JobState.SUCCEEDED


def test_a_refusal_is_final(run):
    job = run(raising(CandidateFailed("no layer of that name")))
    assert (job.state, job.error["code"], job.error["detail"]) == (
        JobState.FAILED, "candidate_failed", "no layer of that name",
    )  # fmt: skip


class OutOfMemoryError(RuntimeError):
    """Named as torch's own."""


@pytest.mark.parametrize(
    "failure",
    [
        StorageFull("no room"),
        MemoryError(),
        OutOfMemoryError("CUDA error: out of memory"),
        RuntimeError("a\x00b"),
        KeyError("x"),
        SystemExit(1),
        KeyboardInterrupt(),
    ],
)
def test_anything_that_may_pass_is_tried_again_until_the_attempts_are_used_up(run, failure):
    for _ in range(2):
        job = run(raising(failure))
        assert job.state == JobState.QUEUED
        assert job.error["retryable"]
    job = run(raising(failure))
    assert (job.state, job.error["code"]) == (JobState.FAILED, "attempts_exhausted")
    assert type(failure).__name__ in job.error["detail"] or "no room" in job.error["detail"]


def test_a_result_that_cannot_be_written_is_a_failed_attempt(bench, run):
    def handler(step, job):
        def write(session):
            session.get(Dataset, job.resource_id).format = "coco"
            session.flush()
            raise CandidateFailed("it does not fit")

        return write

    job = run(handler)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "candidate_failed")
    with bench.database.reading() as session:
        assert session.get(Dataset, job.resource_id).format is None


def test_a_cancelled_job_ends_as_cancelled(bench, run):
    def handler(step, job):
        bench.do(control.cancel, job.id)
        raise Cancelled(job.id)

    assert run(handler).state == JobState.CANCELLED


def test_what_is_computed_after_the_lease_was_lost_is_thrown_away(bench, run):
    written = []

    def handler(step, job):
        let_lapse(bench.database, job.id)
        bench.claim()
        return written.append

    assert run(handler).state == JobState.RUNNING
    assert written == []


def test_a_broken_gpu_context_ends_the_process_after_the_job_was_put_back(bench, run, monkeypatch):
    left = []
    monkeypatch.setattr(tasks.os, "_exit", left.append)
    job = run(raising(RuntimeError("CUDA error: device-side assert triggered")))
    assert (job.state, left) == (JobState.QUEUED, [75])


def test_every_kind_of_job_has_a_task_and_a_handler():
    assert set(tasks.HANDLERS) == set(JobKind)
    for kind in JobKind:
        assert getattr(tasks, kind.value).name == f"detrank.{kind.value}"


def test_the_parent_of_a_pool_loads_no_science():
    code = (
        "import sys, worker.celery_app as module; module.app.loader.import_default_modules(); "
        "print([name for name in ('torch', 'numpy', 'fastapi', 'models_store', 'worker.handlers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
