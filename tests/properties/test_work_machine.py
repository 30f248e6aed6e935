"""All kinds of long work at once: rankings with shards and verifications, searches that pause and go on, studies.

Three workers and several callers play with them by the services that the API asks, in whatever order, as in
test_job_machine.py. After each step every row is compared with the rules that hold for jobs with children, whatever their
kind; in the end everything comes to rest, and what was deleted has left nothing behind.
"""

import itertools
import os
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from sqlalchemy import select

from app import ids
from app.db.engine import Database, database_now
from app.db.tables import (
    Base,
    Candidate,
    Checkpoint,
    Event,
    Job,
    Outbox,
    Ranking,
    Search,
    Study,
    Verification,
)
from app.errors import Conflict, NotFound
from app.queue import leases, outbox, ranking_verifications, verifications
from app.queue.jobs import shown
from app.queue.kinds import KINDS
from app.queue.mirror import awaited
from app.queue.states import BROKEN, ENDED, JobKind, JobState
from app.schemas.rankings import RankingCreate
from app.schemas.searches import SearchCreate
from app.schemas.studies import StudyCreate
from app.schemas.verifications import RankingVerificationsCreate, RankingVerify, VerificationCreate
from app.services import ranking_requests, ranking_verify, rankings, searches, studies, works
from app.services import verifications as alone
from app.settings import Settings
from tests.documents import ranking_result, search_result
from tests.properties.test_job_machine import JobMachine, play
from tests.queue_records import add_dataset, add_workspace, emptied, lasting_postgres, let_lapse

WHOLES = (Ranking, Verification, Search, Study)
ROUNDS = 2
picks = st.integers(0, 60)
hands = st.integers(0, 30)


def counting_ids() -> SimpleNamespace:
    """Randomness that only counts: ids sort as they were made, and a machine plays the same game twice."""
    numbers = itertools.count(1)
    return SimpleNamespace(urandom=lambda n: next(numbers).to_bytes(n, "big"))


class WorkMachine(JobMachine):
    settings = Settings(_env_file=None)

    @initialize(
        worlds=st.sets(st.sampled_from("rsyv"), min_size=1, max_size=2), shards=st.sampled_from([1, 2])
    )
    def begin(self, worlds=frozenset("r"), shards=1):
        ids.os, ids.time = counting_ids(), SimpleNamespace(time_ns=lambda: 0)
        emptied(self.database)
        self.claims, self.writes, self.bells, self.seen = [], {}, [], {}
        with self.database.unit_of_work() as session:
            self.workspace_id = add_workspace(session)
            self.datasets = [self.ready_dataset(session) for _ in range(2)]
            self.checkpoints = [self.ready_checkpoint(session) for _ in range(2)]
        for world in sorted(worlds):
            with self.database.unit_of_work() as session:
                {"r": self.rank, "s": self.search, "y": self.study, "v": self.verify}[world](session, shards)

    def ready_dataset(self, session) -> str:
        row = add_dataset(session, self.workspace_id, "ready")
        row.supervision, row.summary = "boxes", {"images": 9, "splits": {"train": {"images": 9}}}
        return row.id

    def ready_checkpoint(self, session) -> str:
        now = database_now(session)
        row = Checkpoint(
            id=ids.new_id("ckpt"),
            workspace_id=self.workspace_id,
            name="c",
            state="ready",
            request={},
            kind="detector",
            architecture="torchvision/fasterrcnn_resnet50_fpn",
            created_at=now,
            updated_at=now,
        )
        session.add(row)
        session.flush()
        return row.id

    # callers make work

    def rank(self, session, shards):
        asked = RankingCreate(dataset_id=self.datasets[0], checkpoint_ids=self.checkpoints, shards=shards)
        wanted = ranking_requests.normalised(asked, self.settings)
        verify = RankingVerify(top_k=1, seeds=[0, 1], epochs=1)
        rankings.create(session, self.workspace_id, wanted, verify=verify)

    def search(self, session, shards):
        asked = SearchCreate(
            dataset_id=self.datasets[0], checkpoint_ids=self.checkpoints, budget_minutes=10, iterations=60
        )
        searches.create(session, self.workspace_id, asked, self.settings)

    def study(self, session, shards):
        asked = StudyCreate(dataset_ids=self.datasets, checkpoint_ids=self.checkpoints, iterations=9)
        studies.create(session, self.workspace_id, asked, self.settings)

    def verify(self, session, shards):
        asked = VerificationCreate(dataset_id=self.datasets[0], checkpoint_id=self.checkpoints[0], epochs=1)
        alone.create(session, self.workspace_id, asked, self.settings)

    # what the handlers write

    def write_result(self, session, held):
        job = session.get(Job, held.job.id)
        match held.job.kind:
            case JobKind.RANK:
                self.write_order(session, job)
            case JobKind.VERIFY:
                session.get(Verification, job.resource_id).result = {"val": {"box": {"map": 0.5}}}
            case JobKind.SEARCH:
                self.write_round(session, job)
            case JobKind.STUDY:
                session.get(Study, job.resource_id).result = {"verdict": "none"}

    def write_order(self, session, job):
        row = session.get(Ranking, job.resource_id)
        query = select(Candidate).where(Candidate.ranking_id == row.id).order_by(Candidate.position)
        scored = [each for each in session.scalars(query) if each.state == JobState.SUCCEEDED]
        assert scored, "put in order without a score"
        parts = session.scalars(select(Verification).where(Verification.ranking_id == row.id)).all()
        row.result = ranking_result(
            [each.checkpoint_id for each in scored],
            verified_ids=sorted(part.id for part in parts if part.state == JobState.SUCCEEDED),
        )
        ranking_verifications.add_wanted(session, row, job)

    def write_round(self, session, job):
        row = session.get(Search, job.resource_id)
        rounds = row.rounds or []
        if len(rounds) >= ROUNDS:
            row.result = search_result(ladder=[20, 60])
            return
        if rounds:
            before = [session.get(Verification, id) for id in rounds[-1]["parts"]]
            going = [part for part in before if part.state == JobState.SUCCEEDED][:1]
            for part in going:
                paused = session.get(Job, part.job_id, with_for_update=True)
                verifications.go_on(session, part, paused, stop_at={"iterations": 60})
        else:
            ranking = session.scalars(select(Ranking).where(Ranking.search_id == row.id)).one()
            going = [
                verifications.add(
                    session,
                    workspace_id=row.workspace_id,
                    request=row.request["verification"] | {"checkpoint_id": each["checkpoint_id"]},
                    parent=job,
                    stop_at={"iterations": 20},
                )
                for each in ranking.result["order"]
            ]
        row.rounds = [*rounds, {"parts": [part.id for part in going]}]

    # the world as JobMachine has it

    def all_jobs(self) -> list[Job]:
        with self.database.reading() as session:
            return list(session.scalars(select(Job).order_by(Job.id)))

    def pick(self, number: int) -> Job:
        every = self.all_jobs()
        return every[number % len(every)]

    def any_job(self) -> bool:
        return hasattr(self, "seen") and bool(self.all_jobs())

    def in_hand(self, number):
        held = self.claims[number % len(self.claims)]
        with self.database.reading() as session:
            job = session.get(Job, held.job.id)
        return held, job is not None and job.token == held.token

    def rows(self) -> list:
        with self.database.reading() as session:
            return [row for table in WHOLES for row in session.scalars(select(table).order_by(table.id))]

    @precondition(any_job)
    @rule(number=picks, worker=st.sampled_from("abc"))
    def claim(self, number, worker):
        super_claim = JobMachine.claim.hypothesis_stateful_rule.function
        super_claim(self, number, worker)

    @precondition(any_job)
    @rule(number=picks, worker=st.sampled_from("abc"))
    def lose_a_process(self, number, worker):
        with self.database.unit_of_work() as session:
            leases.lost(session, self.pick(number).id, worker)

    # a quick worker, or no game would come far

    @precondition(any_job)
    @rule(number=picks, how=st.sampled_from("sssssf"))
    def do_what_is_queued(self, number, how):
        queued = [job for job in self.all_jobs() if job.state == JobState.QUEUED and job.not_before is None]
        if not queued:
            return
        job = queued[number % len(queued)]
        with self.database.unit_of_work() as session:
            held = leases.claim(session, job.id, "quick", lease_s=1000)
        with self.database.unit_of_work() as session:
            if how == "f":
                leases.fail(session, held, {"code": "x", "detail": "as it happens"})
            else:
                leases.finish(session, held, partial(self.write_result, held=held))

    # callers

    @precondition(any_job)
    @rule(number=picks)
    def cancel(self, number):
        with self.database.unit_of_work() as session:
            works.cancel(session, self.workspace_id, Job, self.pick(number).id)

    @rule()
    def cancel_the_ranking(self):
        """What JobMachine has of one ranking, the next rules have of everything."""

    @precondition(any_job)
    @rule(number=picks)
    def try_again(self, number):
        job = self.pick(number)
        self.tried(Job, job.id, job.state)

    @precondition(any_job)
    @rule(number=picks, verb=st.sampled_from(["cancel", "retry", "retry", "remove"]))
    def ask_of_a_whole(self, number, verb):
        rows = self.rows()
        row = rows[number % len(rows)]
        if verb == "retry":
            self.tried(type(row), row.id, row.state)
            return
        try:
            with self.database.unit_of_work() as session:
                getattr(works, verb)(session, self.workspace_id, type(row), row.id)
        except Conflict:
            return
        if verb == "remove":
            assert row.state in ENDED
            self.nothing_is_left_of(row)

    def tried(self, table, id, state):
        try:
            with self.database.unit_of_work() as session:
                works.retry(session, self.workspace_id, table, id)
        except Conflict:
            return
        assert state in ENDED if table is not Job else state in BROKEN

    @precondition(any_job)
    @rule(number=picks, seed=st.integers(2, 4))
    def verify_more(self, number, seed):
        found = [row for row in self.rows() if isinstance(row, Ranking)]
        if not found:
            return
        asked = RankingVerificationsCreate(top_k=1, seeds=[seed], epochs=1)
        try:
            with self.database.unit_of_work() as session:
                id = found[number % len(found)].id
                ranking_verify.add(session, self.workspace_id, id, asked, self.settings)
        except (Conflict, NotFound):
            return

    # rules

    @invariant()
    def every_row_keeps_the_rules(self):
        if not hasattr(self, "seen"):
            return
        with self.database.reading() as session:
            every = {job.id: job for job in session.scalars(select(Job).order_by(Job.id))}
            bells = set(session.scalars(select(Outbox.job_id)))
            candidates = list(session.scalars(select(Candidate)))
            waits_for = {id: set(awaited(session, job)) for id, job in every.items()}
        children = {id: [job for job in every.values() if job.parent_id == id] for id in every}
        for job in every.values():
            self.a_job_keeps_the_rules(job, bells)
            self.a_parent_keeps_the_rules(job, children[job.id], waits_for[job.id])
        for row in self.rows():
            self.a_row_follows(row, every[row.job_id], children[row.job_id])
        for candidate in candidates:
            job = every[candidate.job_id]
            assert candidate.state == self.state_of_row(job, children[job.id])
            assert candidate.error is None or candidate.state in ENDED
            assert candidate.error is not None or candidate.state != JobState.FAILED

    def a_job_keeps_the_rules(self, job, bells):
        self.writes = {job.id: 1} if job.state == JobState.SUCCEEDED else {}
        super().a_job_keeps_the_rules(job, bells)

    def a_parent_keeps_the_rules(self, job, children, waits_for):
        unfinished = [child for child in children if child.state not in ENDED]
        holding = [child for child in unfinished if child.kind in waits_for]
        if job.state == JobState.WAITING:
            assert holding, "it waits for nothing"
            if job.cancel_requested_at is not None:
                assert not [
                    child for child in unfinished if child.state in (JobState.QUEUED, JobState.RUNNING)
                ]
        else:
            assert not holding, "it went on before its parts had ended"
        if children and KINDS[JobKind(job.kind)].fail_fast and [c for c in children if c.state in BROKEN]:
            assert not [child for child in unfinished if child.state != JobState.CANCELLING]
            assert job.state != JobState.SUCCEEDED

    def state_of_row(self, job, children):
        state = shown(job)
        return JobState.RUNNING if state == JobState.QUEUED and children and job.started_at else state

    def a_row_follows(self, row, job, children):
        assert row.state == self.state_of_row(job, children), "a row is not as its job"
        assert (row.finished_at is not None) == (row.state in ENDED)
        assert (row.error is not None) == (row.state == JobState.FAILED)
        assert row.stage is None or row.state not in ENDED
        self.follows(
            row.id, row.state, row.version, {(state.value, JobState.RUNNING.value) for state in ENDED}
        )

    def nothing_is_left_of(self, row):
        with self.database.reading() as session:
            assert session.get(type(row), row.id) is None
            assert not session.scalars(select(Job).where(Job.resource_id == row.id)).all()
            jobs, rows = set(session.scalars(select(Job.id))), {each.id for each in self.rows()}
            assert set(session.scalars(select(Event.stream_id).distinct())) <= jobs | rows
            assert set(session.scalars(select(Outbox.job_id))) <= jobs
            for table in Base.metadata.sorted_tables:
                for column in ("ranking_id", "search_id", "study_id"):
                    if column in table.c:
                        named = set(session.scalars(select(table.c[column]).distinct())) - {None}
                        assert named <= rows, f"{table.name} still knows of {named - rows}"

    def teardown(self):
        try:
            if not hasattr(self, "seen"):
                return
            self.everything_comes_to_rest()
            self.every_row_keeps_the_rules()
            with self.database.reading() as session:
                streams = {each.id: each.event_seq for each in (*session.scalars(select(Job)), *self.rows())}
                for stream, last in streams.items():
                    query = select(Event.seq).where(Event.stream_id == stream).order_by(Event.seq)
                    assert list(session.scalars(query)) == list(range(1, last + 1))
                assert all(job.state in ENDED for job in session.scalars(select(Job))), "a lost job"
        finally:
            ids.os, ids.time = os, __import__("time")

    def everything_comes_to_rest(self):
        for job in self.all_jobs():
            if job.state in leases.ACTIVE:
                let_lapse(self.database, job.id)
        for _ in range(40):
            leases.requeue_lapsed(self.database)
            self.make_due()
            self.bells.clear()
            outbox.relay_once(self.database, self)
            if not self.bells:
                return
            for job_id in self.bells:
                with self.database.unit_of_work() as session:
                    held = leases.claim(session, job_id, "good", lease_s=1000)
                if held is None:  # what rang before it cancelled or gave it up
                    continue
                with self.database.unit_of_work() as session:
                    leases.finish(session, held, partial(self.write_result, held=held))
        raise AssertionError("bells ring for ever")


def machine(database: Database) -> type:
    return type("Machine", (WorkMachine,), {"database": database})


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_on_sqlite(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'detrank.db'}")
    play(machine(database), examples=40, steps=40)
    database.dispose()


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_on_postgres(lasting_postgres_url):
    for database in lasting_postgres(lasting_postgres_url, "work_machine"):
        play(machine(database), examples=10, steps=30)
