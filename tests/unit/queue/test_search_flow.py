"""What follows the end of a part of a search or study, whoever ends it, and in whatever company."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from app.db.engine import database_now
from app.db.tables import Candidate, Job, Search, Study, Verification
from app.ids import new_id
from app.queue import jobs, leases, tree, verifications
from app.queue.states import JobKind
from tests import control
from tests.queue_records import add_dataset, add_ranking

PARTS = 4
KINDS = {Search: JobKind.SEARCH, Study: JobKind.STUDY}


def finish(database, job_id) -> None:
    with database.unit_of_work() as session:
        held = leases.claim(session, job_id, "w", lease_s=60)
    with database.unit_of_work() as session:
        leases.finish(session, held)


class Whole:
    """A search in its first round, or a study whose rankings are done; its parts are queued."""

    def __init__(self, database, workspace_id, table):
        self.database, self.table = database, table
        with database.unit_of_work() as session:
            row = table(
                id=new_id("sr"),
                workspace_id=workspace_id,
                state="queued",
                request={"budget_minutes": 60.0},
                created_at=database_now(session),
            )
            if table is Search:
                row.dataset_id = add_dataset(session, workspace_id, "ready").id
            session.add(row)
            session.flush()
            own = tree.add(session, KINDS[table], row.id, workspace_id=workspace_id)
            row.job_id = own.id
            ranking = add_ranking(session, workspace_id, [{}], parent=own)
            self.ranking_id, dataset_id = ranking.id, ranking.dataset_id
            self.id = row.id
            (candidate,) = session.scalars(select(Candidate).where(Candidate.ranking_id == ranking.id))
            self.checkpoint_id, score_job = candidate.checkpoint_id, candidate.job_id
            rank_job = ranking.job_id
        if table is Study:
            self.add_parts(dataset_id)
        finish(database, score_job)
        finish(database, rank_job)
        if table is Search:
            with database.unit_of_work() as session:
                held = leases.claim(session, self.row.job_id, "w", lease_s=60)
            with database.unit_of_work() as session:
                leases.finish(session, held, lambda session: self._first_round(session, dataset_id))

    def _first_round(self, session, dataset_id):
        session.get(Search, self.id).rounds = []
        self._add(session, dataset_id)

    def add_parts(self, dataset_id):
        with self.database.unit_of_work() as session:
            self._add(session, dataset_id)

    def _add(self, session, dataset_id):
        own = jobs.lock(session, session.get(self.table, self.id).job_id)
        for position in range(PARTS):
            request = {"dataset_id": dataset_id, "checkpoint_id": self.checkpoint_id, "seed": position}
            verifications.add(
                session, workspace_id=own.workspace_id, request=request, parent=own, position=position
            )

    @property
    def row(self):
        with self.database.reading() as session:
            return session.get(self.table, self.id)

    def part_jobs(self) -> list[str]:
        column = Verification.search_id if self.table is Search else Verification.study_id
        with self.database.reading() as session:
            return list(
                session.scalars(
                    select(Verification.job_id).where(column == self.id).order_by(Verification.position)
                )
            )

    def own_job(self) -> Job:
        """The one that there is."""
        with self.database.reading() as session:
            query = select(Job).where(Job.resource_id == self.id, Job.kind == KINDS[self.table].value)
            return session.scalars(query).one()


@pytest.fixture(params=[Search, Study], ids=["search", "study"])
def whole(request, database, workspace_id) -> Whole:
    return Whole(database, workspace_id, request.param)


def test_parts_that_end_at_the_same_moment_have_it_asked_once(whole):
    assert whole.own_job().state == "waiting"
    with whole.database.unit_of_work() as session:
        held = [leases.claim(session, id, "w", lease_s=60) for id in whole.part_jobs()]
    together = threading.Barrier(PARTS)

    def end(claim):
        together.wait()
        with whole.database.unit_of_work() as session:
            leases.finish(session, claim)

    with ThreadPoolExecutor(PARTS) as pool:
        list(pool.map(end, held))
    assert (whole.own_job().id, whole.own_job().state) == (whole.row.job_id, "queued")
    assert whole.row.stage == ("deciding" if whole.table is Search else "concluding")
    finish(whole.database, whole.row.job_id)
    assert whole.row.state == "succeeded"


def test_cancelling_and_ending_at_once_never_locks_both_out(whole):
    with whole.database.unit_of_work() as session:
        held = [leases.claim(session, id, "w", lease_s=60) for id in whole.part_jobs()]
    together = threading.Barrier(PARTS + 1)

    def end(claim):
        together.wait()
        try:
            with whole.database.unit_of_work() as session:
                leases.cancelled(session, claim)
        except leases.LeaseLost:
            pass

    def cancel():
        together.wait()
        with whole.database.unit_of_work() as session:
            control.cancel_whole(session, whole.table, whole.id)

    with ThreadPoolExecutor(PARTS + 1) as pool:
        for done in [pool.submit(cancel), *(pool.submit(end, claim) for claim in held)]:
            done.result(30)
    assert whole.row.state in ("cancelled", "running")
    if whole.row.state == "running":
        assert whole.own_job().state == "queued", "all had ended before it was cancelled"


def test_a_job_tried_again_is_heard_of_again(whole):
    jobs = whole.part_jobs()
    with whole.database.unit_of_work() as session:
        control.cancel_whole(session, whole.table, whole.id)
    assert whole.row.state == "cancelled"
    with whole.database.unit_of_work() as session:
        for id in jobs:
            control.retry(session, id)
    assert (whole.row.state, whole.row.cancel_requested_at) == ("running", None)
    for id in jobs:
        finish(whole.database, id)
    assert whole.row.stage == ("deciding" if whole.table is Search else "concluding")


def test_an_own_job_that_fails_is_its_end_and_can_be_tried_again(whole):
    for id in whole.part_jobs():
        finish(whole.database, id)
    job_id = whole.row.job_id
    with whole.database.unit_of_work() as session:
        held = leases.claim(session, job_id, "w", lease_s=60)
    with whole.database.unit_of_work() as session:
        leases.fail(session, held, {"code": "x", "detail": "it broke"})
    assert (whole.row.state, whole.row.error["detail"]) == ("failed", "it broke")
    with whole.database.unit_of_work() as session:
        control.retry(session, job_id)
    assert (whole.row.state, whole.row.error) == ("running", None)
    finish(whole.database, job_id)
    assert whole.row.state == "succeeded"
    assert {JobKind.SEARCH, JobKind.STUDY} == set(KINDS.values())
