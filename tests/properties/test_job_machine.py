"""Whatever workers, callers, brokers and clocks do in whatever order: no illegal state, no write by who lost the lease, no lost job.

The machine plays three workers that claim, beat, finish, fail, die and wake up late, and callers who cancel and try again,
on one dataset and one ranking. After every step it compares the rows with the rules; in the end it lets everything come to
rest and asks that every job ended and everything that hangs on a job did too.
"""

from datetime import timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, update

from app.db.engine import Database, database_now
from app.db.tables import Candidate, Dataset, Event, Job, Outbox, Ranking
from app.errors import CandidateFailed, Conflict, TransientFailure
from app.queue import leases, outbox
from app.queue.states import BROKEN, ENDED, FOLLOWS, JobKind, JobState, ResourceState
from tests import control
from tests.queue_records import add_ingest, add_ranking, add_workspace, emptied, lasting_postgres, let_lapse

CANDIDATES = 3
SHARDS = 2  # of the first candidate
jobs = st.integers(0, CANDIDATES + SHARDS + 1)
hands = st.integers(0, 30)
# what a caller may do to an ended ranking: work on it starts anew
AGAIN = {(state.value, JobState.RUNNING.value) for state in ENDED}


class JobMachine(RuleBasedStateMachine):
    database: Database

    @initialize()
    def begin(self):
        emptied(self.database)
        with self.database.unit_of_work() as session:
            workspace_id = add_workspace(session)
            self.dataset_job = add_ingest(session, workspace_id).id
            self.ranking_id = add_ranking(session, workspace_id, [{}] * CANDIDATES, shards=SHARDS).id
            shards = session.scalars(select(Job).where(Job.kind == JobKind.SHARD.value)).all()
            shards = sorted(shards, key=lambda job: job.payload["shard"])
            scores = session.scalars(select(Candidate.job_id).order_by(Candidate.position)).all()
            own = session.get(Ranking, self.ranking_id).job_id
            self.first_jobs = [self.dataset_job, *(job.id for job in shards), *scores, own]
        self.claims: list[leases.Claim] = []
        self.writes: dict[str, int] = {}
        self.bells: list[str] = []
        self.seen: dict[str, tuple[str, int]] = {}

    def all_jobs(self) -> list[Job]:
        with self.database.reading() as session:
            every = {job.id: job for job in session.scalars(select(Job).order_by(Job.created_at))}
        # ids made in the same millisecond are in no order, and a machine must play the same game twice
        return [every.pop(id) for id in self.first_jobs] + list(every.values())

    def pick(self, number: int) -> Job:
        every = self.all_jobs()
        return every[number % len(every)]

    # the world

    @rule(number=jobs, worker=st.sampled_from("abc"))
    def claim(self, number, worker):
        job = self.pick(number)
        with self.database.unit_of_work() as session:
            held = leases.claim(session, job.id, worker, lease_s=1000)
        if held is not None:
            assert job.state in (JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING)
            assert all(held.token != other.token for other in self.claims)
            self.claims.append(held)

    def in_hand(self, number: int) -> tuple[leases.Claim, bool]:
        """A claim that some worker once had, and whether it still has it."""
        held = self.claims[number % len(self.claims)]
        with self.database.reading() as session:
            job = session.get(Job, held.job.id)
        return held, job.token == held.token

    def act(self, number, action, *arguments, **options):
        """Do it for a claim; only who holds the lease may."""
        held, owner = self.in_hand(number)
        try:
            with self.database.unit_of_work() as session:
                action(session, held, *arguments, **options)
        except leases.LeaseLost:
            assert not owner, "the owner was refused"
            return
        assert owner, "a worker that lost its lease could write"

    @precondition(lambda self: self.claims)
    @rule(number=hands)
    def finish(self, number):
        held, _ = self.in_hand(number)

        def write(session):
            self.write_result(session, held)
            self.writes[held.job.id] = self.writes.get(held.job.id, 0) + 1

        self.act(number, leases.finish, write)

    def write_result(self, session, held):
        """What the handler of a job that succeeds writes."""

    @precondition(lambda self: self.claims)
    @rule(number=hands, retry_s=st.sampled_from([None, 0.0, 1000.0]))
    def fail(self, number, retry_s):
        error = (CandidateFailed if retry_s is None else TransientFailure)("as it happens").to_dict()
        self.act(number, leases.fail, error, retry_s=retry_s)

    @precondition(lambda self: self.claims)
    @rule(number=hands)
    def release(self, number):
        self.act(number, leases.release)

    @precondition(lambda self: self.claims)
    @rule(number=hands)
    def heed_a_cancellation(self, number):
        held, owner = self.in_hand(number)
        with self.database.unit_of_work() as session:
            heard = leases.beat(session, held)
        assert heard.held == owner
        if heard.cancel:
            self.act(number, leases.cancelled)

    @precondition(lambda self: self.claims)
    @rule(number=hands, done=st.integers(0, 9))
    def report(self, number, done):
        held, owner = self.in_hand(number)
        told = leases.News((("stage", {"stage": "working"}),), {"done": done, "total": 9, "unit": "images"})
        with self.database.unit_of_work() as session:
            assert leases.report(session, held, told).held == owner

    @precondition(lambda self: self.claims)
    @rule(number=hands)
    def fall_silent(self, number):
        let_lapse(self.database, self.in_hand(number)[0].job.id)

    @rule(number=jobs, worker=st.sampled_from("abc"))
    def lose_a_process(self, number, worker):
        with self.database.unit_of_work() as session:
            leases.lost(session, self.pick(number).id, worker)

    @rule()
    def sweep(self):
        leases.requeue_lapsed(self.database)

    @rule()
    def time_passes(self):
        self.make_due()

    def make_due(self):
        with self.database.unit_of_work() as session:
            past = database_now(session) - timedelta(seconds=1)
            session.execute(update(Job).where(Job.not_before.is_not(None)).values(not_before=past))
            session.execute(update(Outbox).values(not_before=past))

    @rule()
    def relay(self):
        outbox.relay_once(self.database, self)

    def ring(self, job_id, kind, queue):
        self.bells.append(job_id)

    # callers

    @rule(number=jobs)
    def cancel(self, number):
        with self.database.unit_of_work() as session:
            control.cancel(session, self.pick(number).id)

    @rule()
    def cancel_the_ranking(self):
        with self.database.unit_of_work() as session:
            control.cancel_ranking(session, self.ranking_id)

    @rule(number=jobs)
    def try_again(self, number):
        job = self.pick(number)
        try:
            with self.database.unit_of_work() as session:
                control.retry(session, job.id)
        except Conflict:
            return
        assert job.state in (JobState.FAILED, JobState.CANCELLED)
        self.writes.pop(job.id, None)

    # rules

    @invariant()
    def every_row_keeps_the_rules(self):
        if not hasattr(self, "seen"):
            return
        with self.database.reading() as session:
            every = list(session.scalars(select(Job).order_by(Job.id)))
            bells = set(session.scalars(select(Outbox.job_id)))
            ranking = session.get(Ranking, self.ranking_id)
            candidates = list(session.scalars(select(Candidate)))
            dataset = session.scalars(select(Dataset).where(Dataset.job_id.is_not(None))).one()
        for job in every:
            self.a_job_keeps_the_rules(job, bells)
        by_id = {job.id: job for job in every}
        for candidate in candidates:
            job = by_id[candidate.job_id]
            parts = [
                each
                for each in every
                if each.kind == JobKind.SHARD and each.payload["checkpoint_id"] == candidate.checkpoint_id
            ]
            assert job.kind == JobKind.SCORE
            if parts and (job.state == JobState.WAITING or {part.state for part in parts} & BROKEN):
                self.a_candidate_waits_for_its_shards(candidate, job, parts)
            else:
                assert {part.state for part in parts} <= {JobState.SUCCEEDED}
                # at work from the first shard on
                waits = parts and (candidate.state, job.state) == (JobState.RUNNING, JobState.QUEUED)
                assert candidate.state == job.state or waits
        states = {candidate.state for candidate in candidates}
        (own,) = [job for job in every if job.kind == JobKind.RANK]
        assert (own.id, own.state in ENDED) == (ranking.job_id, ranking.state in ENDED)
        if states - ENDED:
            assert ranking.state not in ENDED, "a ranking ended before its candidates"
            assert own.state == JobState.WAITING, "it was put in order too early"
        else:
            at_work = own.state in (JobState.QUEUED, *leases.ACTIVE) or self.is_verifying()
            assert bool(at_work) != (ranking.state in ENDED), "a ranking neither over nor at work"
        assert dataset.state == {
            JobState.SUCCEEDED: ResourceState.READY,
            JobState.FAILED: ResourceState.INVALID,
            JobState.CANCELLED: ResourceState.INVALID,
        }.get(JobState(by_id[self.dataset_job].state), ResourceState.PROCESSING)
        self.follows(ranking.id, ranking.state, ranking.version, AGAIN)

    def is_verifying(self) -> bool:
        return False

    def a_candidate_waits_for_its_shards(self, candidate, job, parts):
        states = {part.state for part in parts}
        assert len(parts) == SHARDS
        assert states != {JobState.SUCCEEDED}, "a whole candidate that nobody puts together"
        assert job.token is None, "it is put together before all parts are there"
        assert (job.state == JobState.WAITING) == bool(states - ENDED)
        if states <= ENDED:
            assert candidate.state == (JobState.FAILED if JobState.FAILED in states else JobState.CANCELLED)
        elif states & {JobState.FAILED, JobState.CANCELLED, JobState.CANCELLING}:
            assert candidate.state == JobState.CANCELLING
            assert not states & {JobState.QUEUED, JobState.RUNNING}, (
                "one goes on though the candidate is lost"
            )
        else:
            assert states == {JobState.QUEUED} or job.started_at is not None
            assert candidate.state == (JobState.QUEUED if job.started_at is None else JobState.RUNNING)
        assert (candidate.error is not None) == (JobState.FAILED in states)

    def a_job_keeps_the_rules(self, job, bells):
        active = job.state in leases.ACTIVE
        assert (job.token is not None) == (job.lease_until is not None) == active
        assert (job.id in bells) == (job.state == JobState.QUEUED), (
            "a bell for each queued job and for no other"
        )
        assert (job.finished_at is not None) == (job.state in ENDED)
        assert 0 <= job.attempt <= job.max_attempts
        assert job.state != JobState.CANCELLING or job.cancel_requested_at is not None
        if job.state == JobState.WAITING or (
            job.state not in ENDED and self.seen.get(job.id, "q")[0] in ENDED
        ):
            self.writes.pop(job.id, None)  # it will be asked again
        if job.kind == JobKind.RANK and job.state == JobState.CANCELLED:
            self.writes.pop(job.id, None)  # its order stays, though what it added was stopped with it
        assert self.writes.get(job.id, 0) == (job.state == JobState.SUCCEEDED)
        if job.progress_total:
            assert job.progress_done <= job.progress_total
        self.follows(job.id, job.state, job.version, set())

    def follows(self, id, state, version, more):
        before, was = self.seen.get(id, (state, version))
        reachable, step = {before}, {before}
        while step := {after for one in step for after in FOLLOWS[JobState(one)]} - reachable:
            reachable |= step
        assert state in reachable or (before, state) in more, f"{before} became {state}"
        assert state == before or version > was, "a change that an ETag would hide"
        self.seen[id] = (state, version)

    def teardown(self):
        if not hasattr(self, "seen"):
            return
        self.everything_comes_to_rest()
        with self.database.reading() as session:
            every = list(session.scalars(select(Job)))
            ranking = session.get(Ranking, self.ranking_id)
            streams = {job.id: job.event_seq for job in every} | {ranking.id: ranking.event_seq}
            for stream, last in streams.items():
                seqs = session.scalars(
                    select(Event.seq).where(Event.stream_id == stream).order_by(Event.seq)
                ).all()
                assert list(seqs) == list(range(1, last + 1))
        assert all(job.state in ENDED for job in every), "a lost job"
        assert ranking.state in ENDED
        self.every_row_keeps_the_rules()

    def everything_comes_to_rest(self):
        """All workers die, the broker works, and a good worker answers its bells."""
        for job in self.all_jobs():
            if job.state in leases.ACTIVE:
                let_lapse(self.database, job.id)
        for _ in range(10):
            leases.requeue_lapsed(self.database)
            self.make_due()
            self.bells.clear()
            outbox.relay_once(self.database, self)
            if not self.bells:
                return
            for job_id in self.bells:
                with self.database.unit_of_work() as session:
                    held = leases.claim(session, job_id, "good", lease_s=1000)
                with self.database.unit_of_work() as session:
                    leases.finish(session, held, partial(self.write_result, held=held))
                    if session.get(Job, job_id).state == JobState.SUCCEEDED:
                        self.writes[job_id] = 1
        raise AssertionError("bells ring for ever")


def machine(database: Database) -> type:
    return type("Machine", (JobMachine,), {"database": database})


def play(machine: type, examples: int, steps: int, seed: int | None = None) -> None:
    """So many games; the same on every run, since a failure belongs to the change that made it, unless a seed is given."""
    if seed is not None:
        machine = with_seed(seed)(machine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=seed is None,
            database=None,
            phases=list(Phase) if seed is None else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


# Hypothesis may take five minutes to make a failing game short
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_on_sqlite(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'detrank.db'}")
    play(machine(database), examples=60, steps=40)
    database.dispose()


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_on_postgres(lasting_postgres_url):
    for database in lasting_postgres(lasting_postgres_url, "job_machine"):
        play(machine(database), examples=15, steps=30)
