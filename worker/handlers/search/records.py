"""What a `search` job knows when it decides: the order of the scores, and how every part of every round ended."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.db import tables
from app.db.documents import Ladder, Part, Round, VerificationResult
from app.errors import NotFound
from app.queue.states import JobKind, JobState
from worker.handlers.results import told_apart
from worker.ranking.halving import Entrant, Pace

LOST = (JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True)
class Known:
    """order: ids of the candidates by score, those without one left out. rounds: with what every part came to."""

    search: tables.Search
    ranking: tables.Ranking
    dataset: tables.Dataset
    order: tuple[str, ...]
    checkpoints: dict[str, tables.Checkpoint]
    names: dict[str, str]  # of checkpoints, told apart
    candidates: dict[str, tables.Candidate]
    verifications: dict[str, tables.Verification]  # by id
    rounds: list[Round]
    ranking_s: float

    @property
    def request(self) -> dict[str, Any]:
        return self.search.request

    @property
    def ladder(self) -> Ladder:
        """By what it spends and where the rounds end, once that was decided."""
        found, kept = self.search.result, Ladder()
        if found is not None and "strategy" in found:
            kept["strategy"] = found["strategy"]
        if found is not None and "ladder" in found:
            kept["ladder"] = found["ladder"]
        if found is not None and "late" in found:
            kept["late"] = found["late"]
        if found is not None and "longest" in found:
            kept["longest"] = found["longest"]
        return kept

    @property
    def budget_s(self) -> float:
        return self.request["budget_minutes"] * 60

    @property
    def training_s(self) -> float:
        return sum(part["seconds"] or 0.0 for part in self.parts())

    @property
    def left_s(self) -> float:
        return self.budget_s - self.ranking_s - self.training_s

    def parts(self, *kinds: str) -> Iterable[Part]:
        """All parts, those of the latest round last; of these kinds of round, where any are named."""
        return (part for one in self.rounds if not kinds or one["kind"] in kinds for part in one["parts"])

    def lost(self, checkpoint_id: str) -> bool:
        return any(part["checkpoint_id"] == checkpoint_id and part["state"] in LOST for part in self.parts())

    def row_of(self, checkpoint_id: str) -> tables.Verification | None:
        """The candidate's training, if it has begun."""
        for part in reversed(list(self.parts("round", "final"))):
            row = self.verifications.get(part["verification_id"])
            if part["checkpoint_id"] == checkpoint_id and row is not None:
                return row
        return None

    def trained(self, checkpoint_id: str) -> tuple[tables.Verification, VerificationResult]:
        """The training of a candidate that has come to the end of a round, and what it came to."""
        row = self.row_of(checkpoint_id)
        if row is None or row.result is None:
            raise AssertionError(f"{checkpoint_id} was not trained by {self.search.id}")
        return row, row.result

    def entrants(self, paces: dict[str, Pace], late: Iterable[str]) -> list[Entrant]:
        """Every candidate as it stands, in the order of the scores."""
        slow = set(late)
        return [self._entrant(id, paces[id], id in slow) for id in self.order]

    def _entrant(self, id: str, pace: Pace, late: bool) -> Entrant:
        rung, iterations = -1, 0
        value: float | None = None
        for one in self.rounds:
            if one["rung"] is None or one["kind"] != "round":
                continue
            for part in one["parts"]:
                if part["checkpoint_id"] == id and part["state"] == JobState.SUCCEEDED:
                    rung = rung_of(one, part)
                    iterations, value = part["iterations"] or 0, part["map"]
        return Entrant(id, pace, rung, iterations, value, late, self.lost(id))


def rung_of(one: Round, part: Part) -> int:
    """Of a part of a round; where parts of one round end at several rungs each says its own."""
    own = part.get("rung")
    rung = one["rung"] if own is None else own
    return -1 if rung is None else rung


def known(session: Session, search_id: str) -> Known:
    """Raises NotFound."""
    search = session.get(tables.Search, search_id)
    if search is None:
        raise NotFound(f"the search {search_id} is gone")
    ranking = session.scalars(select(tables.Ranking).where(tables.Ranking.search_id == search_id)).one()
    pairs = session.execute(
        select(tables.Candidate, tables.Checkpoint)
        .join(tables.Checkpoint, tables.Checkpoint.id == tables.Candidate.checkpoint_id)
        .where(tables.Candidate.ranking_id == ranking.id)
    ).all()
    checkpoints = {checkpoint.id: checkpoint for _, checkpoint in pairs}
    order = ranking.result["order"] if ranking.result else []
    query = select(tables.Verification).where(tables.Verification.search_id == search_id)
    rows = {row.id: row for row in session.scalars(query.options(defer(tables.Verification.curves)))}
    return Known(
        search=search,
        ranking=ranking,
        dataset=session.get_one(tables.Dataset, search.dataset_id),
        order=tuple(row["checkpoint_id"] for row in order if row["rank"]),
        checkpoints=checkpoints,
        names=told_apart({id: checkpoints[id].name for id in search.request["checkpoint_ids"]}),
        candidates={candidate.checkpoint_id: candidate for candidate, _ in pairs},
        verifications=rows,
        rounds=[_settled(session, one, rows) for one in search.rounds or []],
        ranking_s=_seconds_of_ranking(session, ranking.id),
    )


def _settled(session: Session, one: Round, rows: dict[str, tables.Verification]) -> Round:
    """A round whose parts have all ended, with what they came to."""
    if one["seconds"] is not None:
        return one
    timing = one["kind"] == "timing"
    parts = [_came_to(session, part, rows[part["verification_id"]], timing=timing) for part in one["parts"]]
    return {**one, "parts": parts, "seconds": round(sum(part["seconds"] or 0.0 for part in parts), 3)}


def _came_to(session: Session, part: Part, row: tables.Verification, *, timing: bool) -> Part:
    part = {**part, "state": row.state, "error": row.error}
    if row.state != JobState.SUCCEEDED or row.result is None:
        return {**part, "seconds": round(_seconds(session.get(tables.Job, part["job_id"])), 3)}
    # mAP of a few iterations on a few images is none
    box = {} if timing else row.result["val"]["box"]
    return {
        **part,
        "seconds": row.result["worker_seconds"],
        "trained_s": row.seconds,
        "loading_s": row.result["loading_s"],
        "evaluating_s": row.result["evaluating_s"],
        "iterations": row.result["iterations"],
        "map": box.get("map"),
        "ap50": box.get("ap50"),
    }


def _seconds_of_ranking(session: Session, ranking_id: str) -> float:
    kinds = [kind.value for kind in (JobKind.SCORE, JobKind.SHARD, JobKind.RANK)]
    query = select(tables.Job).where(tables.Job.resource_id == ranking_id, tables.Job.kind.in_(kinds))
    return round(sum(_seconds(job) for job in session.scalars(query)), 3)


def _seconds(job: tables.Job | None) -> float:
    """In the hands of workers: with what was lost there."""
    return 0.0 if job is None else job.worked_s
