"""What follows the end of jobs: rankings, candidates, datasets; cancel and retry."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, select

from app.db.tables import Candidate, Dataset, Event, Job, Ranking
from app.errors import CandidateFailed, Conflict, NotFound
from app.queue import leases
from app.queue.states import JobKind, JobState
from tests import control
from tests.queue_records import add_ingest, add_ranking, let_lapse


@pytest.fixture
def ranking_of(database, workspace_id):
    def add(candidates: int) -> str:
        with database.unit_of_work() as session:
            return add_ranking(session, workspace_id, [{}] * candidates).id

    return add


def seen(database, ranking_id) -> tuple[Ranking, list[Candidate], list[Job]]:
    """The ranking, its candidates, and its `rank` jobs."""
    with database.reading() as session:
        candidates = session.scalars(
            select(Candidate).where(Candidate.ranking_id == ranking_id).order_by(Candidate.position)
        )
        ordering = session.scalars(
            select(Job).where(Job.resource_id == ranking_id, Job.kind == JobKind.RANK.value).order_by(Job.id)
        )
        return session.get(Ranking, ranking_id), list(candidates), list(ordering)


def end(database, job_id, how):
    """Bring a queued job to its end: s(ucceed), f(ail), p(oison: its workers die), c(ancel while queued), C(ancel while running)."""
    if how == "c":
        with database.unit_of_work() as session:
            control.cancel(session, job_id)
        return
    if how == "p":
        for _ in range(3):
            with database.unit_of_work() as session:
                leases.claim(session, job_id, "w", lease_s=60)
            let_lapse(database, job_id)
            leases.requeue_lapsed(database)
        return
    with database.unit_of_work() as session:
        held = leases.claim(session, job_id, "w", lease_s=60)
    with database.unit_of_work() as session:
        if how == "s":
            leases.finish(session, held)
        elif how == "f":
            leases.fail(session, held, CandidateFailed("bad weights").to_dict())
        elif how == "C":
            control.cancel(session, job_id)
            leases.cancelled(session, held)


STATES = {"s": "succeeded", "f": "failed", "p": "failed", "c": "cancelled", "C": "cancelled"}


@pytest.mark.parametrize("ends", ["".join(pair) for pair in itertools.product("sfpcC", repeat=2)])
def test_the_last_candidate_to_end_moves_the_ranking_on_however_it_ends(database, ranking_of, ends):
    ranking_id = ranking_of(len(ends))
    _, candidates, _ = seen(database, ranking_id)
    for candidate, how in zip(candidates, ends, strict=True):
        ranking, _, ordering = seen(database, ranking_id)
        assert [job.state for job in ordering] == ["waiting"]
        assert ranking.state in ("queued", "running")
        end(database, candidate.job_id, how)
    ranking, candidates, ordering = seen(database, ranking_id)
    assert [candidate.state for candidate in candidates] == [STATES[how] for how in ends]
    assert all((candidate.error is not None) == (candidate.state == "failed") for candidate in candidates)
    if "s" in ends:
        assert (ranking.state, ranking.stage) == ("running", "ranking")
        assert [(job.id, job.state) for job in ordering] == [(ranking.job_id, "queued")]
        return
    failed = "f" in ends or "p" in ends
    assert ranking.state == ("failed" if failed else "cancelled")
    assert [job.state for job in ordering] == [ranking.state]
    assert (ranking.error is not None) == failed
    if failed:
        assert ranking.error["code"] == "candidate_failed"
        assert len(ranking.error["errors"]) == sum(how in "fp" for how in ends)
    assert ranking.finished_at is not None


@pytest.mark.parametrize(
    ("how", "state"), [("s", "succeeded"), ("f", "failed"), ("p", "failed"), ("c", "cancelled")]
)
def test_the_ranking_ends_as_its_rank_job_does(database, ranking_of, how, state):
    ranking_id = ranking_of(1)
    end(database, seen(database, ranking_id)[1][0].job_id, "s")
    end(database, seen(database, ranking_id)[2][0].id, how)
    ranking, _, ordering = seen(database, ranking_id)
    assert (ranking.state, ranking.stage) == (state, None)
    assert ranking.error == ordering[0].error


def test_candidates_that_end_at_the_same_moment_leave_one_rank_job(database, ranking_of):
    ranking_id = ranking_of(6)
    held = []
    for candidate in seen(database, ranking_id)[1]:
        with database.unit_of_work() as session:
            held.append(leases.claim(session, candidate.job_id, "w", lease_s=60))
    together = threading.Barrier(len(held))

    def finish(claim):
        together.wait()
        with database.unit_of_work() as session:
            leases.finish(session, claim)

    with ThreadPoolExecutor(len(held)) as pool:
        list(pool.map(finish, held))
    ranking, candidates, ordering = seen(database, ranking_id)
    assert {candidate.state for candidate in candidates} == {"succeeded"}
    assert [(job.id, job.state) for job in ordering] == [(ranking.job_id, "queued")]


def test_ends_and_cancellations_at_the_same_moment_neither_deadlock_nor_stall(database, ranking_of):
    for _ in range(3):
        ranking_id = ranking_of(4)
        held = []
        for candidate in seen(database, ranking_id)[1]:
            with database.unit_of_work() as session:
                held.append(leases.claim(session, candidate.job_id, "w", lease_s=60))
        together = threading.Barrier(len(held) + 1)

        def finish(claim, together=together):
            together.wait()
            with database.unit_of_work() as session:
                leases.finish(session, claim)

        def cancel(ranking_id=ranking_id, together=together):
            together.wait()
            with database.unit_of_work() as session:
                control.cancel_ranking(session, ranking_id)

        with ThreadPoolExecutor(len(held) + 1) as pool:
            for future in [pool.submit(cancel), *(pool.submit(finish, claim) for claim in held)]:
                future.result()
        ranking, _, ordering = seen(database, ranking_id)
        assert ranking.cancel_requested_at is not None
        assert ranking.state == "cancelled"
        assert all(job.state == "cancelled" for job in ordering)


def test_cancelling_a_ranking_stops_what_runs_and_drops_what_waits(database, ranking_of):
    ranking_id = ranking_of(3)
    candidates = seen(database, ranking_id)[1]
    end(database, candidates[0].job_id, "s")
    with database.unit_of_work() as session:
        held = leases.claim(session, candidates[1].job_id, "w", lease_s=60)
    for _ in range(2):
        with database.unit_of_work() as session:
            assert control.cancel_ranking(session, ranking_id).state == "cancelling"
    assert [candidate.state for candidate in seen(database, ranking_id)[1]] == [
        "succeeded",
        "cancelling",
        "cancelled",
    ]
    with database.unit_of_work() as session:
        leases.cancelled(session, held)
    ranking, _, ordering = seen(database, ranking_id)
    assert (ranking.state, [job.state for job in ordering]) == ("cancelled", ["cancelled"])
    with database.unit_of_work() as session:
        assert control.cancel_ranking(session, ranking_id).state == "cancelled"


def test_cancelling_while_the_candidates_are_put_in_order(database, ranking_of):
    ranking_id = ranking_of(1)
    end(database, seen(database, ranking_id)[1][0].job_id, "s")
    with database.unit_of_work() as session:
        control.cancel_ranking(session, ranking_id)
    ranking, _, ordering = seen(database, ranking_id)
    assert (ranking.state, ordering[0].state) == ("cancelled", "cancelled")


def test_a_failed_candidate_tried_again_orders_the_ranking_anew(database, ranking_of):
    ranking_id = ranking_of(2)
    good, bad = seen(database, ranking_id)[1]
    end(database, good.job_id, "s")
    end(database, bad.job_id, "f")
    first = seen(database, ranking_id)[2][0]
    with database.unit_of_work() as session, pytest.raises(Conflict, match=first.id):
        control.retry(session, bad.job_id)
    end(database, first.id, "s")
    with database.unit_of_work() as session:
        assert control.retry(session, bad.job_id).attempt == 0
    ranking, candidates, _ = seen(database, ranking_id)
    assert (ranking.state, ranking.stage, ranking.finished_at) == ("running", "scoring", None)
    assert (candidates[1].state, candidates[1].error) == ("queued", None)
    with database.unit_of_work() as session, pytest.raises(Conflict):
        control.retry(session, first.id)
    end(database, bad.job_id, "s")
    ranking, _, ordering = seen(database, ranking_id)
    assert [(job.id, job.state) for job in ordering] == [(ranking.job_id, "queued")]
    end(database, ranking.job_id, "s")
    assert seen(database, ranking_id)[0].state == "succeeded"


def test_a_cancelled_ranking_goes_on_with_the_candidate_that_is_tried_again(database, ranking_of):
    ranking_id = ranking_of(2)
    with database.unit_of_work() as session:
        control.cancel_ranking(session, ranking_id)
    first = seen(database, ranking_id)[1][0]
    with database.unit_of_work() as session:
        control.retry(session, first.job_id)
    end(database, first.job_id, "s")
    ranking, _, ordering = seen(database, ranking_id)
    assert (ranking.state, ranking.cancel_requested_at) == ("running", None)
    assert [job.state for job in ordering] == ["queued"]


@pytest.mark.parametrize(
    ("how", "state"), [("f", "invalid"), ("p", "invalid"), ("c", "invalid"), ("C", "invalid")]
)
def test_a_dataset_is_told_of_every_end_and_of_another_try(database, workspace_id, how, state):
    with database.unit_of_work() as session:
        job = add_ingest(session, workspace_id)
    end(database, job.id, how)
    with database.reading() as session:
        dataset = session.get(Dataset, job.resource_id)
    assert dataset.state == state
    assert dataset.error["detail"]
    with database.unit_of_work() as session:
        control.retry(session, job.id)
        dataset = session.get(Dataset, job.resource_id)
        assert (dataset.state, dataset.error) == ("processing", None)
    end(database, job.id, "s")
    with database.reading() as session:
        assert session.get(Dataset, job.resource_id).state == "ready"


def test_only_what_failed_or_was_cancelled_can_be_tried_again(database, workspace_id):
    with database.unit_of_work() as session:
        job = add_ingest(session, workspace_id)
    with database.unit_of_work() as session, pytest.raises(Conflict, match="queued"):
        control.retry(session, job.id)
    end(database, job.id, "s")
    with database.unit_of_work() as session, pytest.raises(Conflict, match="succeeded"):
        control.retry(session, job.id)
    for action in (control.retry, control.cancel):
        with database.unit_of_work() as session, pytest.raises(NotFound):
            action(session, "job_unknown")
    with database.unit_of_work() as session, pytest.raises(NotFound):
        control.cancel_ranking(session, "rk_unknown")


def test_cancelling_what_is_over_changes_nothing(database, workspace_id):
    with database.unit_of_work() as session:
        job = add_ingest(session, workspace_id)
    end(database, job.id, "s")
    with database.unit_of_work() as session:
        assert control.cancel(session, job.id).state == JobState.SUCCEEDED


def test_a_job_whose_dataset_is_gone_still_ends(database, workspace_id):
    with database.unit_of_work() as session:
        job = add_ingest(session, workspace_id)
        held = leases.claim(session, job.id, "w", lease_s=60)
        session.execute(delete(Dataset).where(Dataset.id == job.resource_id))
    with database.unit_of_work() as session:
        leases.fail(session, held, NotFound("gone").to_dict())
    with database.unit_of_work() as session, pytest.raises(Conflict, match="deleted"):
        control.retry(session, job.id)


def test_the_ranking_s_stream_tells_of_candidates_and_of_itself(database, ranking_of):
    ranking_id = ranking_of(2)
    for candidate in seen(database, ranking_id)[1]:
        end(database, candidate.job_id, "s")
    with database.reading() as session:
        rows = session.scalars(select(Event).where(Event.stream_id == ranking_id).order_by(Event.seq)).all()
        ranking = session.get(Ranking, ranking_id)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    assert ranking.event_seq == len(rows)
    fractions = [row.data["fraction"] for row in rows if row.kind == "progress"]
    assert fractions == [0.5, 1.0]
    assert [row.data["stage"] for row in rows if row.kind == "state" and "stage" in row.data] == [
        "scoring",
        "ranking",
    ]
