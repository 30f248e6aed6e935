"""What ended long ago is deleted where the settings ask for it; what something still needs never is."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from app.db.engine import database_now
from app.db.tables import (
    AuditEntry,
    Candidate,
    Checkpoint,
    Dataset,
    Event,
    Job,
    Outbox,
    Ranking,
    Verification,
)
from app.queue.states import JobState
from app.storage.blobs import open_store
from tests import control
from tests.queue_records import add_ranking
from worker import retention
from worker.tidy import tidy

DAY_S = 24 * 3600.0


@pytest.fixture
def store(settings):
    settings.min_free_disk_bytes = 0
    return open_store(settings)


def ended(bench, job_id: str, days: float) -> None:
    """Ends a job that waits, with all below it; what it is for ended as long ago as that."""
    with bench.database.unit_of_work() as session:
        control.cancel(session, job_id)
        job = session.get(Job, job_id)
        assert job.state == JobState.CANCELLED
        when = database_now(session) - timedelta(days=days)
        for row in session.scalars(select(Ranking).where(Ranking.job_id == job_id)):
            row.finished_at = when
        for row in session.scalars(select(Dataset).where(Dataset.job_id == job_id)):
            row.updated_at = when


def ranking(bench, days: float | None, candidates: int = 2, **request) -> str:
    """A ranking that ended so many days ago, or that waits; its id."""
    with bench.database.unit_of_work() as session:
        workspace_id = session.get(Job, bench.job_id).workspace_id
        made = add_ranking(session, workspace_id, [{}] * candidates)
        made.request = dict(made.request) | request
        id, job_id = made.id, made.job_id
        for table in (Dataset, Checkpoint):
            for row in session.scalars(select(table)):
                row.updated_at = database_now(session) - timedelta(days=30)
    if days is not None:
        ended(bench, job_id, days)
    return id


def rows(bench, table) -> set[str]:
    with bench.database.reading() as session:
        return set(session.scalars(select(table.id)))


def test_nothing_goes_by_itself(bench, store):
    id = ranking(bench, 1000)
    tidy(bench.database, bench.settings, store)
    assert rows(bench, Ranking) == {id}


def test_old_rankings_go_with_all_that_is_theirs_and_the_audit_log_says_so(bench, store):
    old, young, waiting = ranking(bench, 31), ranking(bench, 29), ranking(bench, None)
    bench.settings.rankings_kept_s = 30 * DAY_S
    said = tidy(bench.database, bench.settings, store, dry_run=True)
    assert rows(bench, Ranking) == {old, young, waiting}
    assert said["rankings"].count == 1
    assert tidy(bench.database, bench.settings, store)["rankings"].count == 1
    assert rows(bench, Ranking) == {young, waiting}
    with bench.database.reading() as session:
        assert not session.scalars(select(Job.id).where(Job.resource_id == old)).all()
        assert not session.scalars(select(Candidate.job_id).where(Candidate.ranking_id == old)).all()
        assert not session.scalars(select(Event.seq).where(Event.stream_id == old)).all()
        (entry,) = session.scalars(select(AuditEntry))
        assert (entry.action, entry.resource, entry.key_id) == ("expire_ranking", f"/v1/rankings/{old}", None)
        assert entry.workspace_id == session.get(Ranking, young).workspace_id
        # the bells of what waits are still there
        assert session.scalars(select(Outbox.id)).all()


def test_a_dataset_and_a_checkpoint_go_only_when_nothing_uses_them(bench, store):
    id = ranking(bench, 31)
    with bench.database.reading() as session:
        used = session.get(Ranking, id).dataset_id
        candidates = set(session.scalars(select(Candidate.checkpoint_id)))
    free = rows(bench, Dataset) - {used}
    ended(bench, bench.job_id, 31)
    bench.settings.datasets_kept_s = bench.settings.checkpoints_kept_s = 10 * DAY_S
    gone = tidy(bench.database, bench.settings, store)
    assert (gone["datasets"].count, gone["checkpoints"].count) == (len(free), 0)
    assert rows(bench, Dataset) == {used}
    assert rows(bench, Checkpoint) == candidates
    bench.settings.rankings_kept_s = 30 * DAY_S
    said = tidy(bench.database, bench.settings, store, dry_run=True)
    gone = tidy(bench.database, bench.settings, store)
    kinds = ("rankings", "datasets", "checkpoints")
    assert [gone[kind].count for kind in kinds] == [1, 1, len(candidates)]
    assert [said[kind].count for kind in kinds] == [1, 1, len(candidates)]
    assert rows(bench, Dataset) == rows(bench, Checkpoint) == set()


def test_what_work_that_goes_on_names_stays(bench, store):
    old = ranking(bench, 31)
    comparing = ranking(bench, None, compare_with=old)
    bench.settings.rankings_kept_s = 30 * DAY_S
    assert tidy(bench.database, bench.settings, store)["rankings"].count == 0
    with bench.database.reading() as session:
        job_id = session.get(Ranking, comparing).job_id
    ended(bench, job_id, 0)
    assert tidy(bench.database, bench.settings, store)["rankings"].count == 1
    assert rows(bench, Ranking) == {comparing}


def test_a_dataset_that_is_still_read_stays(bench, store):
    with bench.database.unit_of_work() as session:
        for row in session.scalars(select(Dataset)):
            row.updated_at = database_now(session) - timedelta(days=100)
    bench.settings.datasets_kept_s = DAY_S
    assert tidy(bench.database, bench.settings, store)["datasets"].count == 0
    assert len(rows(bench, Dataset)) == 1


def test_a_round_takes_no_more_than_so_many(bench, store, monkeypatch):
    made = [ranking(bench, 31 + age) for age in range(3)]
    bench.settings.rankings_kept_s = 30 * DAY_S
    monkeypatch.setattr(retention, "MOST_AT_ONCE", 2)
    assert tidy(bench.database, bench.settings, store, dry_run=True)["rankings"].count == 2
    assert tidy(bench.database, bench.settings, store)["rankings"].count == 2
    assert rows(bench, Ranking) == {made[0]}, "the oldest went first"
    assert rows(bench, Verification) == set()
