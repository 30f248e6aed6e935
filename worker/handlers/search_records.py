"""What a `search` job knows when it decides: the order of the scores, and how every part of every round ended."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.db import tables
from app.errors import NotFound
from app.queue.states import ENDED, JobKind, JobState
from worker.handlers.names import told_apart
from worker.ranking.halving import Entrant, Pace

LOST = (JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True)
class Known:
    """order: ids of the candidates by score, those without one left out. rungs: with what every part came to."""

    search: tables.Search
    ranking: tables.Ranking
    dataset: tables.Dataset
    order: tuple[str, ...]
    checkpoints: dict[str, tables.Checkpoint]
    names: dict[str, str]  # of checkpoints, told apart
    candidates: dict[str, tables.Candidate]
    verifications: dict[str, tables.Verification]  # by id
    rungs: list[dict[str, Any]]
    ranking_s: float

    @property
    def request(self) -> dict[str, Any]:
        return self.search.request

    @property
    def result(self) -> dict[str, Any]:
        return self.search.result or {}

    @property
    def budget_s(self) -> float:
        return self.request["budget_minutes"] * 60

    @property
    def training_s(self) -> float:
        return sum(part["seconds"] or 0.0 for part in self.parts())

    @property
    def left_s(self) -> float:
        return self.budget_s - self.ranking_s - self.training_s

    def parts(self, *kinds: str) -> Iterable[dict[str, Any]]:
        """All parts, those of the latest round last; of these kinds of round, where any are named."""
        return (part for rung in self.rungs if not kinds or rung["kind"] in kinds for part in rung["parts"])

    def lost(self, checkpoint_id: str) -> bool:
        return any(part["checkpoint_id"] == checkpoint_id and part["state"] in LOST for part in self.parts())

    def row_of(self, checkpoint_id: str) -> tables.Verification | None:
        """The candidate's training, if it has begun."""
        for part in reversed(list(self.parts("round", "final"))):
            row = self.verifications.get(part["verification_id"])
            if part["checkpoint_id"] == checkpoint_id and row is not None:
                return row
        return None

    def entrants(self, paces: dict[str, Pace], late: Iterable[str]) -> list[Entrant]:
        """Every candidate as it stands, in the order of the scores."""
        slow = set(late)
        return [self._entrant(id, paces[id], id in slow) for id in self.order]

    def _entrant(self, id: str, pace: Pace, late: bool) -> Entrant:
        rung, iterations, value = -1, 0, None
        for one in self.rungs:
            for part in one["parts"] if one["kind"] == "round" else ():
                if part["checkpoint_id"] == id and part["state"] == JobState.SUCCEEDED:
                    rung, iterations, value = one["rung"], part["iterations"], part["map"]
        return Entrant(id, pace, rung, iterations, value, late, self.lost(id))


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
    query = select(tables.Verification).where(tables.Verification.search_id == search_id)
    rows = {row.id: row for row in session.scalars(query.options(defer(tables.Verification.curves)))}
    return Known(
        search=search,
        ranking=ranking,
        dataset=session.get_one(tables.Dataset, search.dataset_id),
        order=tuple(row["checkpoint_id"] for row in (ranking.result or {}).get("order") or [] if row.get("rank")),
        checkpoints=checkpoints,
        names=told_apart({id: checkpoints[id].name for id in search.request["checkpoint_ids"]}),
        candidates={candidate.checkpoint_id: candidate for candidate, _ in pairs},
        verifications=rows,
        rungs=[_settled(session, rung, rows) for rung in search.rungs or []],
        ranking_s=_seconds_of_ranking(session, ranking.id),
    )


def _settled(session: Session, rung: dict[str, Any], rows: dict[str, tables.Verification]) -> dict[str, Any]:
    """A round whose parts have all ended, with what they came to."""
    if rung["seconds"] is not None:
        return rung
    parts = [
        part | _came_to(session, part, rows[part["verification_id"]], timing=rung["kind"] == "timing") for part in rung["parts"]
    ]
    return rung | {"parts": parts, "seconds": round(sum(part["seconds"] for part in parts), 3)}


def _came_to(
    session: Session, part: dict[str, Any], row: tables.Verification, *, timing: bool
) -> dict[str, Any]:
    job = session.get(tables.Job, part["job_id"])
    ended = {"state": row.state, "error": row.error}
    if row.state != JobState.SUCCEEDED:
        return ended | {"seconds": round(_seconds(job), 3)}
    box = {} if timing else row.result["val"]["box"]  # mAP of a few iterations on a few images is none
    return ended | {
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
    """From its first claim to its end: with what was lost where its worker was."""
    if job is None or job.started_at is None or job.finished_at is None or job.state not in ENDED:
        return 0.0
    return max(job.finished_at - job.started_at, timedelta()).total_seconds()
