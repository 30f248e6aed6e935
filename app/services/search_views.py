"""A search as it is shown. What is kept of it: app/db/documents."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.db.documents import Best, Part
from app.db.tables import Checkpoint, Ranking, Search, Verification
from app.schemas.ranking_views import LeftOut
from app.schemas.searches import (
    BruteForce,
    SearchBest,
    SearchPart,
    SearchRound,
    SearchSummary,
    SearchView,
    Spent,
    Sure,
)
from app.services import spreadsheet
from app.services.work_views import details_of, summary_of

_CSV_FIELDS = (
    "round",
    "kind",
    "rung",
    "checkpoint_id",
    "name",
    "verification_id",
    "state",
    "begin",
    "stop",
    "iterations",
    "map",
    "ap50",
    "predicted_s",
    "expected_improvement",
    "seconds",
    "goes_on",
    "error",
)


def summary(session: Session, row: Search) -> SearchSummary:
    return SearchSummary(**_summary(session, row))


def view(session: Session, row: Search) -> SearchView:
    result = row.result
    names = result["names"] if result else _names(session, row.request["checkpoint_ids"])
    query = select(Verification).options(defer(Verification.curves), defer(Verification.plan))
    verifications = {one.id: one for one in session.scalars(query.where(Verification.search_id == row.id))}
    budget_s = row.request["budget_minutes"] * 60
    nothing = Spent(budget_s=budget_s, ranking_s=0.0, training_s=0.0, total_s=0.0, left_s=budget_s)
    sure, brute_force = (result.get("sure"), result["brute_force"]) if result else (None, None)
    return SearchView(
        **_summary(session, row),
        **details_of(row),
        ranking_id=session.scalar(select(Ranking.id).where(Ranking.search_id == row.id)),
        strategy=(result.get("strategy") if result else None) or row.request.get("strategy"),
        ladder=result.get("ladder", []) if result else [],
        rounds=_rounds(row, verifications, names),
        best=_best(result["best"], verifications, names) if result else None,
        sure=Sure.model_validate(sure) if sure else None,
        spent=Spent(**result["spent"]) if result else nothing,
        brute_force=BruteForce(**brute_force) if brute_force else None,
        left_out=[LeftOut(**one) for one in result["left_out"]] if result else [],
        warnings=result["warnings"] if result else [],
        summary=result.get("summary") if result else None,
    )


def as_csv(shown: SearchView) -> str:
    """A row for each part of each round, as `spreadsheet.as_csv` writes tables."""
    rows = []
    for number, one in enumerate(shown.rounds, 1):
        for part in one.parts:
            error = (part.error or {}).get("detail")
            rows.append(
                part.model_dump() | {"round": number, "kind": one.kind, "rung": one.rung, "error": error}
            )
    return spreadsheet.as_csv(_CSV_FIELDS, rows)


def _summary(session: Session, row: Search) -> dict[str, Any]:
    best = row.result["best"] if row.result else None
    found = session.get(Verification, best["verification_id"]) if best else None
    return {
        **summary_of(row),
        "dataset_id": row.dataset_id,
        "checkpoint_ids": row.request["checkpoint_ids"],
        "budget_minutes": row.request["budget_minutes"],
        "map": found.map if found else None,
        "trained_checkpoint_id": found.trained_checkpoint_id if found else None,
    }


def _names(session: Session, ids: list[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for start in range(0, len(ids), 500):  # SQLite takes a limited number of parameters
        some = Checkpoint.id.in_(ids[start : start + 500])
        names |= dict(session.execute(select(Checkpoint.id, Checkpoint.name).where(some)).all())
    return names


def _rounds(row: Search, verifications: dict[str, Verification], names: dict[str, str]) -> list[SearchRound]:
    rounds = row.rounds or []
    later = [
        {part["checkpoint_id"] for one in rounds[n:] for part in one["parts"]}
        for n in range(1, len(rounds) + 1)
    ]
    over = row.state in ("succeeded", "failed", "cancelled")
    return [
        SearchRound(
            kind=one["kind"],
            rung=one["rung"],
            stop=one["stop"],
            left_s=one["left_s"],
            predicted_s=one["predicted_s"],
            seconds=one["seconds"],
            parts=[
                _part(part, verifications.get(part["verification_id"]), names, _goes_on(part, gone_on, over))
                for part in one["parts"]
            ],
        )
        for one, gone_on in zip(rounds, later, strict=True)
    ]


def _goes_on(part: Part, later: set[str], over: bool) -> bool | None:
    if part["checkpoint_id"] in later:
        return True
    return False if over or part["state"] in ("failed", "cancelled") else None


def _part(part: Part, row: Verification | None, names: dict[str, str], goes_on: bool | None) -> SearchPart:
    # what is still at work stands on its own row
    at_work = row is not None and row.job_id == part["job_id"]
    return SearchPart(
        checkpoint_id=part["checkpoint_id"],
        name=names[part["checkpoint_id"]],
        verification_id=part["verification_id"],
        job_id=part["job_id"],
        state=part["state"] or (row.state if row is not None and at_work else "queued"),
        begin=part["begin"],
        stop=part["stop"],
        iterations=part["iterations"],
        map=part["map"],
        ap50=part["ap50"],
        predicted_s=part["predicted_s"],
        expected_improvement=part.get("expected_improvement"),
        seconds=part["seconds"],
        goes_on=goes_on,
        error=part["error"],
    )


def _best(
    best: Best | None, verifications: dict[str, Verification], names: dict[str, str]
) -> SearchBest | None:
    row = verifications.get(best["verification_id"]) if best else None
    if best is None or row is None:
        return None
    result = row.result
    val = result["val"]["box"] if result else {}
    test = result["test"]["box"] if result and result["test"] else {}
    return SearchBest(
        **best,
        name=names[best["checkpoint_id"]],
        trained_checkpoint_id=row.trained_checkpoint_id,
        val_map=val.get("map"),
        val_ap50=val.get("ap50"),
        test_map=test.get("map"),
        test_ap50=test.get("ap50"),
    )
