"""Rounds of a search whose trainings are played: what is spent stays within the budget, whatever happens."""

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from handler_bench import Bench
from small_service import queued, work_all
from sqlalchemy import select

from app.db.tables import Blob, Candidate, Checkpoint, Dataset, Event, Job, Ranking, Search, Verification
from app.errors import VerificationFailed
from app.queue import leases
from app.schemas.searches import SearchCreate, SearchView
from app.services import search_views, searches, works
from tests import control
from tests.documents import ranking_result
from worker import tasks
from worker.handlers.search import search as search_handler

LOADING_S, IMAGES = 2.0, {"train": 100, "val": 20, "test": 20}
ASKED = {"iterations": 300, "image_size": 320, "batch_size": 4, "metrics": ["logme"]}


@dataclass
class World:
    """What is true of the candidates, told to nobody.

    quality: mAP each would reach; step_s: true seconds of an iteration; failing: candidate to the iteration at which it fails.
    told: seconds of a forward pass as the ranking measures it.
    """

    quality: dict[str, float]
    step_s: dict[str, float]
    told: dict[str, float] = field(default_factory=dict)
    failing: dict[str, int] = field(default_factory=dict)
    final_fails: set[str] = field(default_factory=set)
    worked_s: float = 0.0

    def map_at(self, id: str, iteration: int) -> float:
        return round(self.quality[id] * (1 - math.exp(-iteration / 60)), 4)


class Played:
    """A bench whose score, rank and verify jobs do as the world says."""

    def __init__(
        self,
        bench: Bench,
        monkeypatch: pytest.MonkeyPatch,
        candidates: int = 8,
        slow: dict[int, float] | None = None,
    ):
        self.bench, now = bench, datetime.now(UTC)
        # whose architecture is known to what is predicted in the ranking; None: nothing is predicted there
        self.known: set[str] | None = None
        self.dataset = "ds_" + "1" * 32
        self.ids = [f"ckpt_{n:032x}" for n in range(candidates)]
        # the scores order them well, but for the best, which stands third
        order = [0.5, 0.6, 0.7, *(0.4 - 0.02 * n for n in range(candidates))]
        self.world = World(
            dict(zip(self.ids, order, strict=False)),
            {id: 0.2 * (slow or {}).get(n, 1.0) for n, id in enumerate(self.ids)},
        )
        self.world.told = {id: step / 80 for id, step in self.world.step_s.items()}
        splits = {name: {"images": count} for name, count in IMAGES.items()}
        with bench.database.unit_of_work() as session:
            session.add(
                Dataset(
                    id=self.dataset,
                    workspace_id="ws_1",
                    name="set",
                    state="ready",
                    request={},
                    supervision="boxes",
                    digest="d" * 64,
                    summary={"splits": splits},
                    created_at=now,
                    updated_at=now,
                )
            )
            for n, id in enumerate(self.ids):
                session.add(Blob(sha256=f"{n:064x}", size_bytes=0, media_type="x", created_at=now))
                session.flush()
                session.add(
                    Checkpoint(
                        id=id,
                        workspace_id="ws_1",
                        name=f"candidate {n}",
                        state="ready",
                        request={},
                        kind="detector",
                        architecture="torchvision/fasterrcnn_resnet50_fpn",
                        manifest={},
                        weights_sha256=f"{n:064x}",
                        created_at=now,
                        updated_at=now,
                    )
                )
        real = tasks._handler
        mine = {"score": self._score, "rank": self._rank, "verify": self._verify}
        monkeypatch.setattr(tasks, "_handler", lambda kind: mine.get(kind.value) or real(kind))

    def asked(self, minutes: float, **fields) -> str:
        body = (
            ASKED
            | {"dataset_id": self.dataset, "checkpoint_ids": self.ids, "budget_minutes": minutes}
            | fields
        )
        with self.bench.database.unit_of_work() as session:
            return searches.create(session, "ws_1", SearchCreate(**body), self.bench.settings).id

    def search(self, minutes: float, **fields) -> SearchView:
        id = self.asked(minutes, **fields)
        work_all(self.bench)
        return self.at(id)

    def at(self, id: str) -> SearchView:
        with self.bench.database.reading() as session:
            return search_views.view(session, session.get(Search, id))

    def _score(self, step, job) -> Callable:
        def write(session):
            row = session.get(Candidate, (job.resource_id, job.payload["checkpoint_id"]))
            ms = 1000 * self.world.told[row.checkpoint_id]
            row.cost, row.timings = {"ms_per_image": ms, "image_hw": [320, 320]}, {"load": 0.5}

        return write

    def _rank(self, step, job) -> Callable:
        def write(session):
            row = session.get(Ranking, job.resource_id)
            row.result = ranking_result(self.ids, verified_ids=[])
            if self.known is not None:
                each = {"mean": 0.3, "low": 0.1, "high": 0.5, "architecture_seen": True}
                told = [
                    each | {"checkpoint_id": id, "architecture_seen": id in self.known} for id in self.ids
                ]
                row.belief, row.believed_from = {"candidates": told}, "evidence"

        return write

    def _verify(self, step, job) -> Callable:
        """Trains to its stop, or as far as its seconds last."""
        row = self.bench.get(Verification, job.resource_id)
        id, stop = row.checkpoint_id, row.stop_at
        begin, before = (row.result or {}).get("iterations", 0), row.seconds or 0.0
        pace, end = self.world.step_s[id], stop["iterations"]
        if stop["seconds"] is not None:
            end = min(end, begin + max(1, math.ceil((stop["seconds"] - before) / pace)))
        if begin < self.world.failing.get(id, 10**9) <= end:
            raise VerificationFailed("its loss is no number any more", code="training_diverged")
        if stop["conclude"] and id in self.world.final_fails:
            raise VerificationFailed("no room to store it", code="out_of_memory")
        seconds = LOADING_S + (end - begin) * pace
        self.world.worked_s += seconds
        box = {"map": self.world.map_at(id, end), "ap50": None}

        def write(session):
            mine = session.get(Verification, row.id)
            mine.seconds = before + (end - begin) * pace
            mine.map, mine.split = box["map"], "test" if stop["conclude"] else "val"
            mine.plan = {
                "iterations": row.request["iterations"],
                "images": IMAGES["train"],
                "recipe": {"name": "quick"},
            }
            mine.result = {
                "val": {"box": box, "images": 20},
                "test": {"box": box, "images": 20} if stop["conclude"] else None,
                "iterations": end,
                "finished": "completed" if end == row.request["iterations"] else "paused",
                "warnings": [],
                "worker_seconds": seconds,
                "loading_s": LOADING_S / 2,
                "evaluating_s": LOADING_S / 2,
            }

        return write


@pytest.fixture
def played(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(bench, monkeypatch)


def trained(found: SearchView) -> set[str]:
    return {part.checkpoint_id for one in found.rounds for part in one.parts if one.kind == "round"}


def sound(found: SearchView) -> None:
    """What is true of every search that has ended."""
    assert found.state == "succeeded"
    assert found.spent.total_s <= found.spent.budget_s * 1.001
    assert found.spent.training_s == pytest.approx(sum(one.seconds for one in found.rounds), abs=0.1)
    at_rung: dict[int, set[str]] = {}
    for one in found.rounds:
        assert one.predicted_s <= one.left_s
        if one.kind == "round":
            ids = {part.checkpoint_id for part in one.parts}
            if one.rung:
                assert ids <= set().union(*(at_rung[rung] for rung in at_rung if rung < one.rung))
            at_rung.setdefault(one.rung, set()).update(ids)
    assert len({one.checkpoint_id for one in found.left_out} | trained(found)) == len(found.checkpoint_ids)


def test_the_best_is_found_for_a_part_of_brute_force(played: Played) -> None:
    found = played.search(4)
    sound(found)
    assert [one.kind for one in found.rounds][0 :: len(found.rounds) - 1] == ["timing", "final"]
    assert found.best.checkpoint_id == played.ids[2], "third by score, first by mAP"
    assert found.best.rank == 3
    assert found.best.test_map == played.world.map_at(played.ids[2], found.best.iterations)
    assert len(trained(found)) == 8
    assert found.spent.total_s < 0.55 * found.brute_force.seconds
    assert found.brute_force.seconds == pytest.approx(8 * (0.2 * 300 + LOADING_S), rel=0.4)
    assert found.sure.runner_up in played.ids
    assert [one.n for one in found.sure.rounds_agree] == sorted(
        [one.n for one in found.sure.rounds_agree], reverse=True
    )
    assert [one.kendall for one in found.sure.rounds_agree if one.n >= 3] == [1.0] * sum(
        one.n >= 3 for one in found.sure.rounds_agree
    )


@pytest.mark.parametrize(("factor", "minutes"), [(0.2, 3), (4.0, 1.5), (4.0, 8)])
def test_seconds_that_were_thought_wrong_do_not_break_the_budget(
    played: Played, factor: float, minutes: float
) -> None:
    """Forward passes that say five times too much, or four times too little, of what training takes."""
    played.world.told = {id: told * factor for id, told in played.world.told.items()}
    found = played.search(minutes)
    sound(found)
    assert found.best is not None
    # the steps themselves are known after the first part; what is left carries no whole training more
    assert found.spent.left_s < 0.35 * found.spent.budget_s or len(trained(found)) == 8


def test_one_that_fails_is_listed_and_its_share_goes_to_the_others(played: Played) -> None:
    whole = played.search(3)
    played.world.failing = {played.ids[2]: 30, played.ids[0]: 5}
    found = played.search(3)
    sound(found)
    assert {(one.checkpoint_id, one.code) for one in found.left_out if one.code != "no_room"} == {
        (played.ids[2], "failed"),
        (played.ids[0], "failed"),
    }
    assert "no number" in found.left_out[0].reason
    assert found.best.checkpoint_id == played.ids[1]

    def at_end(view):
        return sum(
            p.iterations == view.ladder[-1] for one in view.rounds if one.kind == "round" for p in one.parts
        )

    assert at_end(found) >= at_end(whole)
    gone = [part for one in found.rounds for part in one.parts if part.state == "failed"]
    assert all(part.goes_on is False and part.error["code"] == "training_diverged" for part in gone)


def test_when_all_fail_it_says_so(played: Played) -> None:
    played.world.failing = dict.fromkeys(played.ids, 3)
    found = played.search(3)
    assert (found.state, found.best) == ("succeeded", None)
    assert "every training failed" in found.summary
    assert {one.code for one in found.left_out} == {"failed"}


def test_a_budget_for_nothing_trains_nothing_and_says_what_it_would_have_taken(played: Played) -> None:
    found = played.search(0.05)
    assert (found.state, found.best, found.rounds) == ("succeeded", None, [])
    assert "not one training fits" in found.summary
    assert {one.code for one in found.left_out} == {"no_room"}


def test_where_the_winner_cannot_be_stored_the_next_one_wins(played: Played) -> None:
    played.world.final_fails = {played.ids[2]}
    found = played.search(4)
    assert [one.kind for one in found.rounds][-2:] == ["final", "final"]
    assert found.best.checkpoint_id in (played.ids[1], played.ids[0])
    assert [one.code for one in found.left_out if one.checkpoint_id == played.ids[2]] == ["failed"]


def test_a_slow_giant_does_not_cost_the_others_their_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(bench, monkeypatch, slow={0: 40.0})
    found = played.search(3)
    sound(found)
    assert found.best.checkpoint_id == played.ids[2]
    assert played.ids[0] not in trained(found)
    assert found.spent.left_s < 0.35 * found.spent.budget_s
    (out,) = [one for one in found.left_out if one.checkpoint_id == played.ids[0]]
    assert (out.code, "no room" in out.reason) == ("no_room", True)


def test_with_paces_known_from_before_nothing_is_timed(played: Played) -> None:
    first = played.search(4)
    again = played.search(4)
    sound(again)
    assert (
        [one.kind for one in first.rounds].count("timing"),
        [one.kind for one in again.rounds].count("timing"),
    ) == (1, 0)
    predicted, real = again.rounds[0].predicted_s, again.rounds[0].seconds
    assert real == pytest.approx(predicted, rel=0.5)


def test_more_than_enough_trains_everybody_in_one_go(played: Played) -> None:
    found = played.search(60)
    sound(found)
    assert found.ladder == [300]
    assert [len(one.parts) for one in found.rounds] == [1, 8, 1]
    assert {part.iterations for part in found.rounds[1].parts} == {300}
    assert found.warnings == []


def test_parts_of_one_round_that_end_at_once_leave_one_decision(played: Played) -> None:
    """As many workers as parts."""
    id = played.asked(4)
    while (
        queued(played.bench, "verify") is None
        or not played.at(id).rounds
        or played.at(id).rounds[-1].kind != "round"
    ):
        played.bench.work(queued(played.bench))
    parts = [part.job_id for part in played.at(id).rounds[-1].parts]
    assert len(parts) > 3
    together = threading.Barrier(len(parts))

    def work(job_id: str) -> None:
        together.wait()
        played.bench.work(job_id)

    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(work, parts))
    with played.bench.database.reading() as session:
        waiting = session.scalars(select(Job.id).where(Job.kind == "search", Job.state == "queued")).all()
    assert waiting == [played.bench.get(Search, id).job_id]
    work_all(played.bench)
    sound(played.at(id))


def test_a_worker_that_dies_in_a_round_costs_nothing_but_its_attempt(played: Played) -> None:
    id = played.asked(4)
    while not played.at(id).rounds or played.at(id).rounds[-1].kind != "round":
        played.bench.work(queued(played.bench))
    job_id = played.at(id).rounds[-1].parts[1].job_id
    with played.bench.database.unit_of_work() as session:
        leases.claim(session, job_id, "doomed", lease_s=60)
    with played.bench.database.unit_of_work() as session:
        assert leases.lost(session, job_id, "doomed")
    work_all(played.bench)
    found = played.at(id)
    sound(found)
    assert found.best.checkpoint_id == played.ids[2]
    with played.bench.database.reading() as session:
        told = session.scalars(select(Event.data).where(Event.stream_id == job_id)).all()
    assert max(each.get("attempt", 0) for each in told) == 2


def test_cancelled_while_it_decides_it_adds_no_parts(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    id = played.asked(4)
    while queued(played.bench, "search") is None:
        played.bench.work(queued(played.bench))
    decided = search_handler._decided

    def cancelling(*arguments):
        with played.bench.database.unit_of_work() as session:
            control.cancel_whole(session, Search, id)
        return decided(*arguments)

    monkeypatch.setattr(search_handler, "_decided", cancelling)
    played.bench.work(queued(played.bench, "search"))
    found = played.at(id)
    assert found.state in ("cancelled", "cancelling")
    work_all(played.bench)
    assert (played.at(id).state, played.at(id).rounds) == ("cancelled", [])
    monkeypatch.setattr(search_handler, "_decided", decided)
    with played.bench.database.unit_of_work() as session:
        works.retry(session, "ws_1", Search, id)
    work_all(played.bench)
    sound(played.at(id))


def test_a_cancelled_round_goes_on_from_where_it_stood(played: Played) -> None:
    id = played.asked(4)
    while not [one for one in played.at(id).rounds if one.rung == 1]:
        played.bench.work(queued(played.bench))
    with played.bench.database.unit_of_work() as session:
        control.cancel_whole(session, Search, id)
    assert played.at(id).state == "cancelled"
    with played.bench.database.unit_of_work() as session:
        works.retry(session, "ws_1", Search, id)
    work_all(played.bench)
    found = played.at(id)
    sound(found)
    assert found.best.checkpoint_id == played.ids[2]
    assert not [one for one in found.left_out if one.code == "cancelled"]
