"""How an attempt ends, whatever its handler does."""

import errno
import subprocess
import sys

import pytest

from app.db.tables import Dataset
from app.errors import CandidateFailed, StorageFull, Unavailable, UnusableDataset
from app.queue.kinds import QUEUES_VARIABLE
from app.queue.states import JobKind, JobState
from tests import control
from tests.queue_records import let_lapse
from worker import tasks
from worker.attempt import Cancelled


@pytest.fixture
def run(bench, monkeypatch):
    """One attempt at a job with a handler of the test's."""

    def attempt(handler, job_id=None):
        monkeypatch.setattr(tasks, "_handler", lambda kind: handler)
        claim = bench.claim(job_id)
        with bench.attempt(claim) as attempt:
            tasks.work_on(attempt, claim)
        return bench.job(claim.job.id)

    return attempt


def raising(failure):
    def handler(attempt, job):
        raise failure

    return handler


def test_success_writes_what_the_handler_returned(bench, run):
    def handler(attempt, job):
        attempt.progress(1, 2, "images")
        return lambda session: setattr(session.get(Dataset, job.resource_id), "format", "coco")

    job = run(handler)
    assert (job.state, job.progress_done, job.progress_total) == (JobState.SUCCEEDED, 2, 2)
    with bench.database.reading() as session:
        assert session.get(Dataset, job.resource_id).format == "coco"


def test_a_handler_may_have_nothing_to_write(run):
    assert run(lambda attempt, job: None).state == JobState.SUCCEEDED


def test_a_refusal_is_final(run):
    job = run(raising(CandidateFailed("no layer of that name")))
    assert (job.state, job.error["code"], job.error["detail"]) == (
        JobState.FAILED,
        "candidate_failed",
        "no layer of that name",
    )


class OutOfMemoryError(RuntimeError):
    """Named as torch's own."""


@pytest.mark.parametrize(
    "failure",
    [
        Unavailable("no storage"),
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
    assert type(failure).__name__ in job.error["detail"] or "no storage" in job.error["detail"]


def test_a_result_that_cannot_be_written_is_a_failed_attempt(bench, run):
    def handler(attempt, job):
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
    def handler(attempt, job):
        bench.do(control.cancel, job.id)
        raise Cancelled(job.id)

    assert run(handler).state == JobState.CANCELLED


def test_what_is_computed_after_the_lease_was_lost_is_thrown_away(bench, run):
    written = []

    def handler(attempt, job):
        let_lapse(bench.database, job.id)
        bench.claim()
        return written.append

    assert run(handler).state == JobState.RUNNING
    assert written == []


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        StorageFull("4 bytes are free"),
        RuntimeError("PytorchStreamWriter: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_spends_no_attempt_and_the_job_goes_on_when_there_is_room(bench, run, failure):
    def handler(attempt, job):
        try:
            raise failure
        except BaseException as cause:  # as a reader may take it for the file's fault
            raise UnusableDataset("the archive cannot be read") from cause

    job = run(handler)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert job.error["code"] == "storage_full"
    assert job.not_before is not None
    with bench.database.reading() as session:
        assert session.get(Dataset, job.resource_id).state == "processing"


def test_a_broken_gpu_context_ends_the_process_after_the_job_was_put_back(bench, run, monkeypatch):
    left = []
    monkeypatch.setattr(tasks.os, "_exit", left.append)
    job = run(raising(RuntimeError("CUDA error: device-side assert triggered")))
    assert (job.state, left) == (JobState.QUEUED, [75])


def test_every_kind_of_job_has_a_task_and_a_handler():
    assert set(tasks.HANDLERS) == set(tasks.TASKS) == set(JobKind)
    for kind in JobKind:
        assert tasks.TASKS[kind].name == f"detrank.{kind.value}"
        assert callable(tasks._handler(kind))


def test_the_parent_of_a_pool_loads_no_science():
    code = (
        "import sys, worker.celery_app as module; module.app.loader.import_default_modules(); "
        "print([name for name in ('torch', 'numpy', 'fastapi', 'models_store', 'worker.handlers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("handler", ["intake.ingest", "intake.inspect", "ranking.rank"])
def test_short_work_waits_for_no_torch(handler: str) -> None:
    code = f"import sys, worker.handlers.{handler}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_who_extracts_alone_has_imported_what_that_takes_before_the_first_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    imported: list[tuple[str, JobKind]] = []
    monkeypatch.setattr(tasks.process, "ignore_hand_back", lambda: None)
    for queues in ("cpu", "cpu,gpu", "gpu"):
        monkeypatch.setenv(QUEUES_VARIABLE, queues)
        monkeypatch.setattr(tasks, "_handler", lambda kind, queues=queues: imported.append((queues, kind)))
        tasks.prepare_child()
    assert imported == [("gpu", JobKind.SCORE)]


def test_a_handler_that_cannot_be_imported_ahead_is_left_to_its_first_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks.process, "ignore_hand_back", lambda: None)
    monkeypatch.setenv(QUEUES_VARIABLE, "gpu")
    monkeypatch.setitem(tasks.HANDLERS, JobKind.SCORE, "worker.handlers.nowhere")
    tasks.prepare_child()
    with pytest.raises(ModuleNotFoundError):
        tasks._handler(JobKind.SCORE)
