"""Workspaces take turns, whoever has the most jobs."""

import pytest
from sqlalchemy import select

from app.db.tables import Job, Workspace
from app.queue import jobs, leases, outbox, tree, turns
from app.queue.states import JobKind
from tests.queue_records import add_ingest, add_ranking, add_workspace


@pytest.fixture
def two(database):
    """Ten jobs of one workspace, then one of another; the bells in that order."""
    with database.unit_of_work() as session:
        many, few = add_workspace(session), add_workspace(session)
        jobs = [add_ingest(session, many).id for _ in range(10)] + [add_ingest(session, few).id]
    return jobs


def taken(database, job_id):
    with database.unit_of_work() as session:
        return turns.answer(session, job_id, "w", lease_s=60)


def finish(database, claim):
    with database.unit_of_work() as session:
        leases.finish(session, claim, None)


def served_by(database, bells):
    """The jobs that these bells serve, each finished before the next bell."""
    served = []
    for bell in bells:
        claim = taken(database, bell)
        served.append(claim.job.id)
        finish(database, claim)
    return served


def test_the_first_job_of_another_waits_for_one_job_only(database, two):
    first, second = taken(database, two[0]), taken(database, two[1])
    assert first.job.id == two[0]
    assert second.job.id == two[-1]


def test_every_bell_serves_a_job_until_none_is_left(database, two):
    served = served_by(database, two)
    assert sorted(served) == sorted(two)
    assert taken(database, two[0]) is None


def test_one_workspace_is_served_in_order(database, two):
    with database.unit_of_work() as session:
        for row in session.scalars(select(Job).where(Job.id == two[-1])):
            outbox.drop(session, row.id)
            session.delete(row)
    assert [taken(database, bell).job.id for bell in two[:-1]] == two[:-1]


def test_a_job_of_another_queue_is_never_taken(database, two):
    with database.unit_of_work() as session:
        other = session.get(Job, two[0])
        other.queue = "gpu"
        assert other.kind == JobKind.INGEST
    assert taken(database, two[1]).job.id == two[1]
    assert taken(database, two[0]).job.id == two[0]


def test_the_larger_priority_comes_first_within_a_workspace_and_brings_its_parts(database, two):
    with database.unit_of_work() as session:
        workspace_id = session.get(Job, two[0]).workspace_id
        ranking = add_ranking(session, workspace_id, [{}, {}])
        whole = jobs.lock(session, ranking.job_id)
        tree.prioritise(session, whole, 5)
        added = tree.add(session, JobKind.SCORE, ranking.id, workspace_id=workspace_id, parent=whole).id
        assert {job.priority for job in tree.below(session, whole)} == {5}
        assert session.get(Job, added).priority == 5
        tree.prioritise(session, jobs.lock(session, two[3]), 2)
        tree.prioritise(session, jobs.lock(session, two[0]), -1)
    mine = served_by(database, two)
    mine.remove(two[-1])  # of the other workspace, which has its turn as before
    assert mine[0] == two[3]
    assert mine[-1] == two[0]
    assert mine[1:-1] == [two[1], two[2], *two[4:-1]]


def test_a_workspace_of_a_larger_priority_is_served_first(database, two):
    with database.unit_of_work() as session:
        few = session.get(Job, two[-1]).workspace_id
        late = [add_ingest(session, few).id for _ in range(2)]
        session.get(Workspace, few).priority = 1
    served = served_by(database, [*two, *late])
    assert served[:3] == [two[-1], *late]
    assert served[3:] == two[:-1]
