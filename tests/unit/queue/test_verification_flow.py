"""What follows the end of a verification's job: alone, and as the last part of a ranking."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from app.db.tables import Candidate, Event, Job, Ranking, Subset, Verification
from app.errors import CandidateFailed, Conflict
from app.queue import leases, ranking_verifications, verifications
from app.queue.states import JobKind
from tests import control
from tests.documents import ranking_result
from tests.queue_records import add_ranking

VERIFY = {"top_k": 2, "seeds": [0, 1], "epochs": 1, "recipe": None}


def take(database, job_id) -> leases.Claim:
    with database.unit_of_work() as session:
        return leases.claim(session, job_id, "w", lease_s=60)


def finish(database, job_id, write=None) -> None:
    held = take(database, job_id)
    with database.unit_of_work() as session:
        leases.finish(session, held, write)


def fail(database, job_id) -> None:
    held = take(database, job_id)
    with database.unit_of_work() as session:
        leases.fail(session, held, CandidateFailed("no number any more").to_dict())


class Played:
    """A ranking whose jobs a test ends as workers would."""

    def __init__(self, database, workspace_id, candidates=3, verify=VERIFY):
        self.database = database
        with database.unit_of_work() as session:
            ranking = add_ranking(session, workspace_id, [{}] * candidates)
            self.id = ranking.id
            self.checkpoints = list(
                session.scalars(
                    select(Candidate.checkpoint_id)
                    .where(Candidate.ranking_id == self.id)
                    .order_by(Candidate.position)
                )
            )
            if verify:
                asked = verify | {
                    "recipe_of": dict.fromkeys(self.checkpoints, "quick"),
                    "recipes": {"quick": {"recipe": "quick", "epochs": 1}},
                }
                ranking.request = {"verify": asked}

    def score(self):
        with self.database.reading() as session:
            jobs = session.scalars(select(Candidate.job_id).where(Candidate.ranking_id == self.id)).all()
        for job_id in jobs:
            finish(self.database, job_id)

    def rank(self):
        """The rank job: the order of the request, from all verifications that have succeeded."""

        def write(session):
            row = session.get(Ranking, self.id)
            seen = session.scalars(
                select(Verification.id).where(
                    Verification.ranking_id == self.id, Verification.state == "succeeded"
                )
            )
            row.result = ranking_result(self.checkpoints, verified_ids=sorted(seen))
            ranking_verifications.add_wanted(session, row, session.get(Job, row.job_id))

        finish(self.database, self.ranking.job_id, write)

    @property
    def ranking(self) -> Ranking:
        with self.database.reading() as session:
            return session.get(Ranking, self.id)

    @property
    def verifications(self) -> list[Verification]:
        with self.database.reading() as session:
            query = select(Verification).where(Verification.ranking_id == self.id)
            return list(session.scalars(query.order_by(Verification.position)))

    def rank_job(self) -> str:
        """The state of the one that there is."""
        with self.database.reading() as session:
            query = select(Job.state).where(Job.resource_id == self.id, Job.kind == JobKind.RANK.value)
            return session.scalars(query).one()


@pytest.fixture
def played(database, workspace_id):
    one = Played(database, workspace_id)
    one.score()
    one.rank()
    return one


def test_the_order_adds_a_verification_for_each_of_the_best_and_each_seed(played):
    assert (played.ranking.state, played.ranking.stage) == ("running", "verifying")
    rows = played.verifications
    assert [(row.checkpoint_id, row.request["seed"]) for row in rows] == [
        (id, seed) for id in played.checkpoints[:2] for seed in (0, 1)
    ]
    assert len({row.terms for row in rows}) == len({row.subset_id for row in rows}) == 1
    assert rows[0].request["recipe"] == "quick"
    assert set(rows[0].request) == {"recipe", "epochs", "dataset_id", "checkpoint_id", "seed", "name"}


def test_all_means_every_candidate_with_a_place(database, workspace_id):
    one = Played(database, workspace_id, verify=VERIFY | {"top_k": "all", "seeds": [7]})
    one.score()
    one.rank()
    assert [row.checkpoint_id for row in one.verifications] == one.checkpoints


def test_the_last_to_end_has_the_ranking_concluded_once_whatever_failed(played):
    first, *others = played.verifications
    fail(played.database, first.job_id)
    for row in others:
        assert (played.ranking.stage, played.rank_job()) == ("verifying", "waiting")
        finish(played.database, row.job_id)
    assert (played.ranking.state, played.ranking.stage) == ("running", "concluding")
    assert played.rank_job() == "queued"
    played.rank()
    assert (played.ranking.state, played.rank_job()) == ("succeeded", "succeeded")
    assert [row.state for row in played.verifications] == ["failed"] + ["succeeded"] * 3


def test_verifications_that_end_at_the_same_moment_leave_one_rank_job(played):
    held = [take(played.database, row.job_id) for row in played.verifications]
    together = threading.Barrier(len(held))

    def end(claim):
        together.wait()
        with played.database.unit_of_work() as session:
            leases.finish(session, claim)

    with ThreadPoolExecutor(len(held)) as pool:
        list(pool.map(end, held))
    assert (played.rank_job(), played.ranking.stage) == ("queued", "concluding")


def test_cancelling_and_ending_at_once_never_locks_both_out(played):
    held = [take(played.database, row.job_id) for row in played.verifications]
    together = threading.Barrier(len(held) + 1)

    def end(claim):
        together.wait()
        try:
            with played.database.unit_of_work() as session:
                leases.cancelled(session, claim)
        except leases.LeaseLost:
            pass

    def cancel():
        together.wait()
        with played.database.unit_of_work() as session:
            control.cancel_ranking(session, played.id)

    with ThreadPoolExecutor(len(held) + 1) as pool:
        for done in [pool.submit(cancel), *(pool.submit(end, claim) for claim in held)]:
            done.result(30)
    assert played.ranking.state in ("cancelled", "running")


def test_a_cancelled_ranking_cancels_its_verifications_and_keeps_the_order(played):
    running = take(played.database, played.verifications[0].job_id)
    with played.database.unit_of_work() as session:
        control.cancel_ranking(session, played.id)
    assert [row.state for row in played.verifications] == ["cancelling"] + ["cancelled"] * 3
    assert played.ranking.state == "cancelling"
    with played.database.unit_of_work() as session:
        leases.cancelled(session, running)
    assert (played.ranking.state, played.rank_job()) == ("cancelled", "cancelled")
    assert played.ranking.result["order"]


def test_a_failed_verification_is_tried_again_and_the_ranking_concluded_anew(played):
    first, *others = played.verifications
    fail(played.database, first.job_id)
    for row in others:
        finish(played.database, row.job_id)
    with pytest.raises(Conflict, match="put in order"), played.database.unit_of_work() as session:
        control.retry(session, first.job_id)
    played.rank()
    with played.database.unit_of_work() as session:
        control.retry(session, first.job_id)
    assert (played.ranking.state, played.ranking.stage) == ("running", "verifying")
    assert (played.verifications[0].state, played.verifications[0].error) == ("queued", None)
    finish(played.database, first.job_id)
    assert played.ranking.stage == "concluding"
    played.rank()
    assert (played.ranking.state, played.rank_job()) == ("succeeded", "succeeded")


def test_nothing_is_concluded_while_a_verification_is_at_work(played):
    """Whatever ends later would be forgotten by an order made before."""
    rows = played.verifications
    for row in rows[:-1]:
        finish(played.database, row.job_id)
    assert take(played.database, played.ranking.job_id) is None
    finish(played.database, rows[-1].job_id)
    assert (played.ranking.stage, played.rank_job()) == ("concluding", "queued")
    played.rank()
    assert played.ranking.state == "succeeded"
    assert set(played.ranking.result["verified_ids"]) == {row.id for row in rows}


def test_its_events_tell_its_own_stream_and_that_of_the_ranking(played):
    row = played.verifications[0]
    finish(played.database, row.job_id)
    with played.database.reading() as session:
        own = session.scalars(select(Event).where(Event.stream_id == row.id).order_by(Event.seq)).all()
        told = [
            event.data["verification"]["state"]
            for event in session.scalars(
                select(Event).where(Event.stream_id == played.id).order_by(Event.seq)
            )
            if event.data.get("verification", {}).get("id") == row.id
        ]
    assert [event.data["state"] for event in own] == ["queued", "running", "succeeded"]
    assert told == ["running", "succeeded"]


def test_the_same_subset_is_one_row_whoever_asks_at_once(database, workspace_id):
    with database.unit_of_work() as session:
        dataset_id = add_ranking(session, workspace_id, []).dataset_id
    together = threading.Barrier(4)

    def ask(fraction):
        together.wait()
        with database.unit_of_work() as session:
            return verifications.subset_for(
                session, workspace_id=workspace_id, dataset_id=dataset_id, fraction=fraction, seed=2**32 - 1
            ).id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, [0.1] * 4))) == 1
    with database.unit_of_work() as session:
        whole = {
            verifications.subset_for(
                session, workspace_id=workspace_id, dataset_id=dataset_id, fraction=fraction, seed=seed
            ).id
            for fraction, seed in ((None, 0), (1.0, 3))
        }
    assert len(whole) == 1, "all of it does not depend on a seed"
    with database.reading() as session:
        assert sorted(session.scalars(select(Subset.key))) == [
            "train/all",
            "train/fraction=0.1/seed=4294967295",
        ]
