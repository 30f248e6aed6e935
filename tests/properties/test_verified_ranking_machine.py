"""The same game where the ranking's candidates are scored already and its best are fine-tuned: verifications begin, end, fail,
are cancelled and tried again in whatever order, and the ranking ends once, with a result that has seen all that succeeded."""

import pytest
from hypothesis.stateful import initialize
from sqlalchemy import select

from app.db.engine import Database
from app.db.tables import Candidate, Event, Job, Ranking, Verification
from app.queue import leases, ranking_verifications
from app.queue.states import ENDED, JobKind, JobState
from tests.documents import ranking_result
from tests.properties.test_job_machine import CANDIDATES, JobMachine, play
from tests.queue_records import add_ingest, add_ranking, add_workspace, emptied, lasting_postgres

VERIFY = {"top_k": 2, "seeds": [0, 1], "recipes": {"quick": {"recipe": "quick"}}}


class VerifiedRankingMachine(JobMachine):
    @initialize()
    def begin(self):
        emptied(self.database)
        with self.database.unit_of_work() as session:
            workspace_id = add_workspace(session)
            self.dataset_job = add_ingest(session, workspace_id).id
            ranking = add_ranking(session, workspace_id, [{}] * CANDIDATES)
            self.ranking_id = ranking.id
            rows = session.execute(
                select(Candidate.checkpoint_id, Candidate.job_id).order_by(Candidate.position)
            ).all()
            self.order = [row.checkpoint_id for row in rows]
            ranking.request = {"verify": VERIFY | {"recipe_of": dict.fromkeys(self.order, "quick")}}
        self.first_jobs = [self.dataset_job, *(row.job_id for row in rows)]
        self.claims, self.writes, self.bells, self.seen = [], {}, [], {}
        for row in rows:
            with self.database.unit_of_work() as session:
                held = leases.claim(session, row.job_id, "a", lease_s=1000)
            with self.database.unit_of_work() as session:
                leases.finish(session, held)
            self.writes[row.job_id] = 1

    def all_jobs(self) -> list[Job]:
        """The dataset's, then those of the ranking, then those of the verifications in their order."""
        with self.database.reading() as session:
            every = {job.id: job for job in session.scalars(select(Job).order_by(Job.created_at))}
            positions = dict(session.execute(select(Verification.id, Verification.position)).all())
        first = [every.pop(id) for id in self.first_jobs]
        parts = sorted(every.values(), key=lambda job: positions.get(job.resource_id, -1))
        return first[:1] + parts + first[1:]

    def write_result(self, session, held):
        if held.job.kind != JobKind.RANK:
            return
        ranking = session.get(Ranking, self.ranking_id)
        seen = session.scalars(
            select(Verification.id).where(
                Verification.ranking_id == ranking.id, Verification.state == JobState.SUCCEEDED.value
            )
        )
        ranking.result = ranking_result(self.order, verified_ids=sorted(seen))
        ranking_verifications.add_wanted(session, ranking, session.get(Job, held.job.id))

    def is_verifying(self) -> bool:
        with self.database.reading() as session:
            ranking = session.get(Ranking, self.ranking_id)
            rows = list(session.scalars(select(Verification)))
            jobs = {job.id: job for job in session.scalars(select(Job))}
        for row in rows:
            assert row.state == jobs[row.job_id].state, "a verification is not as its job"
            assert (row.error is not None) == (row.state == JobState.FAILED)
            assert (row.finished_at is not None) == (row.state in ENDED)
            self.follows(row.id, row.state, row.version, set())
        pairs = [(row.checkpoint_id, row.request["seed"]) for row in rows]
        assert len(pairs) == len(set(pairs)), "the same was asked for twice"
        if ranking.state == JobState.SUCCEEDED:
            assert len(pairs) == 4
            succeeded = {row.id for row in rows if row.state == JobState.SUCCEEDED}
            assert set(ranking.result["verified_ids"]) == succeeded, "a result that has not seen all"
        return any(row.state not in ENDED for row in rows)

    def teardown(self):
        super().teardown()
        if not hasattr(self, "seen"):
            return
        with self.database.reading() as session:
            for row in session.scalars(select(Verification)):
                seqs = session.scalars(
                    select(Event.seq).where(Event.stream_id == row.id).order_by(Event.seq)
                ).all()
                assert list(seqs) == list(range(1, row.event_seq + 1))


def machine(database: Database) -> type:
    return type("Machine", (VerifiedRankingMachine,), {"database": database})


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_on_sqlite(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'detrank.db'}")
    play(machine(database), examples=40, steps=40)
    database.dispose()


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_on_postgres(lasting_postgres_url):
    for database in lasting_postgres(lasting_postgres_url, "verified_machine"):
        play(machine(database), examples=10, steps=30)
