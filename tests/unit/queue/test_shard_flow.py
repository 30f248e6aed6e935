"""Candidates that are read in parts: what follows the end of each part; cancel and retry."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from app.db.tables import Candidate, Event, Job, Ranking
from app.errors import CandidateFailed, Conflict
from app.queue import leases
from app.queue.states import ENDED, JobKind
from tests import control
from tests.queue_records import add_ranking


@pytest.fixture
def ranking_of(database, workspace_id):
    """The id of a ranking whose first candidate has so many shards; the second, where wanted, none."""

    def add(shards: int, *, others: int = 0) -> str:
        with database.unit_of_work() as session:
            return add_ranking(session, workspace_id, [{}] * (1 + others), shards=shards).id

    return add


def seen(database, ranking_id) -> tuple[Ranking, list[Candidate], dict[str, list[Job]]]:
    """The ranking, its candidates, and its jobs by kind."""
    with database.reading() as session:
        candidates = session.scalars(
            select(Candidate).where(Candidate.ranking_id == ranking_id).order_by(Candidate.position)
        ).all()
        every = session.scalars(select(Job).where(Job.resource_id == ranking_id)).all()
        ranking = session.get(Ranking, ranking_id)
    kinds = {kind: [job for job in every if job.kind == kind] for kind in JobKind}
    kinds[JobKind.SHARD].sort(key=lambda job: job.payload["shard"])
    return ranking, list(candidates), kinds


def states(database, ranking_id) -> list[str]:
    return [job.state for job in seen(database, ranking_id)[2][JobKind.SHARD]]


def take(database, job_id) -> leases.Claim | None:
    with database.unit_of_work() as session:
        return leases.claim(session, job_id, "w", lease_s=60)


def end(database, held, how="s"):
    """s(ucceed), f(ail), C(ancelled as asked)"""
    with database.unit_of_work() as session:
        match how:
            case "s":
                leases.finish(session, held)
            case "f":
                leases.fail(session, held, CandidateFailed("bad weights").to_dict())
            case "C":
                leases.cancelled(session, held)


def test_the_last_shard_has_the_score_job_asked_and_that_one_ends_the_candidate(database, ranking_of):
    ranking_id = ranking_of(3)
    shards = seen(database, ranking_id)[2][JobKind.SHARD]
    assert [job.queue for job in shards] == ["gpu"] * 3
    for number, job in enumerate(shards):
        ranking, [candidate], kinds = seen(database, ranking_id)
        [score] = kinds[JobKind.SCORE]
        assert (candidate.state, score.state) == ("running" if number else "queued", "waiting")
        assert (candidate.job_id, job.parent_id) == (score.id, score.id)
        assert take(database, score.id) is None
        end(database, take(database, job.id))
    ranking, [candidate], kinds = seen(database, ranking_id)
    [score] = kinds[JobKind.SCORE]
    assert score.payload == {"checkpoint_id": candidate.checkpoint_id, "shards": 3}
    assert (candidate.job_id, candidate.state, score.state) == (score.id, "running", "queued")
    assert (ranking.state, ranking.stage) == ("running", "scoring")
    assert [job.state for job in kinds[JobKind.RANK]] == ["waiting"]
    end(database, take(database, score.id))
    ranking, [candidate], kinds = seen(database, ranking_id)
    assert (candidate.state, ranking.stage) == ("succeeded", "ranking")
    assert [job.state for job in kinds[JobKind.RANK]] == ["queued"]
    with database.reading() as session:
        told = session.scalars(select(Event).where(Event.stream_id == ranking_id).order_by(Event.seq)).all()
    done = [
        event.data["candidate"]["shards"]["done"]
        for event in told
        if "shards" in event.data.get("candidate", {})
    ]
    assert done == sorted(done)
    assert set(done) == {0, 1, 2, 3}


def test_a_shard_that_fails_stops_the_others_and_the_candidate_fails_with_its_reason(database, ranking_of):
    ranking_id = ranking_of(4, others=1)
    first, second, third, _ = seen(database, ranking_id)[2][JobKind.SHARD]
    end(database, take(database, first.id))
    held, other = take(database, second.id), take(database, third.id)
    end(database, held, "f")
    assert states(database, ranking_id) == ["succeeded", "failed", "cancelling", "cancelled"]
    assert seen(database, ranking_id)[1][0].state == "cancelling"
    end(database, other, "C")
    ranking, candidates, kinds = seen(database, ranking_id)
    assert (candidates[0].state, candidates[0].error["detail"]) == ("failed", "bad weights")
    assert (candidates[1].state, ranking.state) == ("queued", "running")
    assert [job.state for job in kinds[JobKind.RANK]] == ["waiting"]
    end(database, take(database, candidates[1].job_id))
    ranking, _, kinds = seen(database, ranking_id)
    assert (ranking.stage, [job.state for job in kinds[JobKind.RANK]]) == ("ranking", ["queued"])
    assert {job.id for job in kinds[JobKind.SCORE]} == {candidate.job_id for candidate in candidates}


@pytest.mark.parametrize("which", range(3))
def test_trying_a_shard_again_takes_those_that_stopped_with_it(database, ranking_of, which):
    ranking_id = ranking_of(3)
    first, second, third = seen(database, ranking_id)[2][JobKind.SHARD]
    end(database, take(database, first.id))
    end(database, take(database, second.id), "f")
    assert states(database, ranking_id) == ["succeeded", "failed", "cancelled"]
    assert seen(database, ranking_id)[0].state == "failed"
    with database.unit_of_work() as session:
        if which == 0:
            with pytest.raises(Conflict, match="succeeded"):
                control.retry(session, first.id)
            return
        control.retry(session, [first, second, third][which].id)
    ranking, [candidate], _ = seen(database, ranking_id)
    assert states(database, ranking_id) == ["succeeded", "queued", "queued"]
    assert (ranking.state, candidate.state, candidate.error) == ("running", "running", None)
    for job in (third, second):
        end(database, take(database, job.id))
    _, [candidate], kinds = seen(database, ranking_id)
    assert (candidate.job_id, kinds[JobKind.SCORE][0].state) == (kinds[JobKind.SCORE][0].id, "queued")


def test_cancelling_one_shard_or_the_ranking_cancels_all(database, ranking_of):
    for whole in (False, True):
        ranking_id = ranking_of(3)
        first, second, _ = seen(database, ranking_id)[2][JobKind.SHARD]
        held = take(database, second.id)
        with database.unit_of_work() as session:
            control.cancel_ranking(session, ranking_id) if whole else control.cancel(session, first.id)
        assert states(database, ranking_id) == ["cancelled", "cancelling", "cancelled"]
        end(database, held, "C")
        ranking, [candidate], kinds = seen(database, ranking_id)
        assert (candidate.state, ranking.state) == ("cancelled", "cancelled")
        assert [job.state for job in kinds[JobKind.SCORE]] == ["cancelled"]


def test_a_shard_is_not_tried_again_while_another_is_still_stopping(database, ranking_of):
    ranking_id = ranking_of(2)
    first, second = seen(database, ranking_id)[2][JobKind.SHARD]
    held = take(database, first.id)
    with database.unit_of_work() as session:
        control.cancel_ranking(session, ranking_id)
    with pytest.raises(Conflict, match="still stopping"), database.unit_of_work() as session:
        control.retry(session, second.id)
    assert states(database, ranking_id) == ["cancelling", "cancelled"]
    end(database, held, "C")
    with database.unit_of_work() as session:
        control.retry(session, second.id)
    assert states(database, ranking_id) == ["queued", "queued"]


def test_shards_that_succeed_though_the_ranking_was_cancelled_can_still_be_scored_later(database, ranking_of):
    ranking_id = ranking_of(2)
    held = [take(database, job.id) for job in seen(database, ranking_id)[2][JobKind.SHARD]]
    with database.unit_of_work() as session:
        control.cancel_ranking(session, ranking_id)
    for each in held:
        end(database, each)
    ranking, [candidate], kinds = seen(database, ranking_id)
    [score] = kinds[JobKind.SCORE]
    assert (ranking.state, candidate.state, score.state) == ("cancelled", "cancelled", "cancelled")
    with database.unit_of_work() as session:
        control.retry(session, score.id)
    end(database, take(database, score.id))
    assert seen(database, ranking_id)[1][0].state == "succeeded"


def test_a_shard_whose_candidate_is_being_scored_is_no_longer_awaited(database, ranking_of):
    ranking_id = ranking_of(2)
    for job in seen(database, ranking_id)[2][JobKind.SHARD]:
        end(database, take(database, job.id))
    score = seen(database, ranking_id)[2][JobKind.SCORE][0]
    end(database, take(database, score.id), "f")
    assert seen(database, ranking_id)[1][0].state == "failed"
    with database.unit_of_work() as session:
        control.retry(session, score.id)
    assert seen(database, ranking_id)[1][0].state == "running", "its shards are read, and it is being scored"
    assert states(database, ranking_id) == ["succeeded", "succeeded"]


@pytest.mark.parametrize("ends", ["".join(each) for each in itertools.product("sfC", repeat=3)])
def test_however_shards_end_together_the_candidate_ends_once(database, ranking_of, ends):
    ranking_id = ranking_of(3)
    held = [take(database, job.id) for job in seen(database, ranking_id)[2][JobKind.SHARD]]
    if "C" in ends:
        with database.unit_of_work() as session:
            control.cancel(session, held[ends.index("C")].job.id)
    together = threading.Barrier(3)

    def finish(pair):
        together.wait()
        end(database, *pair)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(finish, zip(held, ends, strict=True)))
    ranking, [candidate], kinds = seen(database, ranking_id)
    expected = "failed" if "f" in ends else "cancelled" if "C" in ends else "running"
    assert candidate.state == expected
    assert [job.state for job in kinds[JobKind.SCORE]] == ["queued" if expected == "running" else expected]
    assert (ranking.state in ENDED) == (expected != "running")
