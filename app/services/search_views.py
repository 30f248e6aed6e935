"""A search as it is shown.

What the `search` job writes into `Search.rungs`, and is read here:
[{"kind", "rung", "stop", "left_s", "predicted_s", "seconds", "parts": [{"checkpoint_id", "verification_id", "job_id", "begin",
  "stop", "predicted_s", "seconds", "state", "iterations", "map", "ap50", "error"}]}]
and into `Search.result`, as it goes on:
{"names": {checkpoint id: name, told apart}, "ladder": [iterations], "spent": as Spent, "best", "sure", "brute_force", "left_out", "warnings", "summary"}
"""

import csv
import io
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.db.tables import Checkpoint, Ranking, Search, Verification
from app.schemas.searches import SearchBest, SearchPart, SearchRound, SearchSummary, SearchView, Spent

_PLAIN = (
    "id", "state", "stage", "dataset_id", "error", "job_id", "created_at", "started_at", "finished_at",
)  # fmt: skip
_CSV_FIELDS = (
    "round", "kind", "rung", "checkpoint_id", "name", "verification_id", "state", "begin", "stop", "iterations", "map", "ap50",
    "predicted_s", "seconds", "goes_on", "error",
)  # fmt: skip


def summary(session: Session, row: Search) -> SearchSummary:
    return SearchSummary(**_summary(session, row))


def view(session: Session, row: Search) -> SearchView:
    result = row.result or {}
    names = result.get("names") or _names(session, row.request["checkpoint_ids"])
    query = select(Verification).options(defer(Verification.curves), defer(Verification.plan))
    verifications = {one.id: one for one in session.scalars(query.where(Verification.search_id == row.id))}
    budget_s = row.request["budget_minutes"] * 60
    nothing = Spent(budget_s=budget_s, ranking_s=0.0, training_s=0.0, total_s=0.0, left_s=budget_s)
    return SearchView(
        **_summary(session, row),
        request=row.request,
        ranking_id=session.scalar(select(Ranking.id).where(Ranking.search_id == row.id)),
        ladder=result.get("ladder") or [],
        rounds=_rounds(row, verifications, names),
        best=_best(result, verifications, names),
        sure=result.get("sure"),
        spent=result.get("spent") or nothing,
        brute_force=result.get("brute_force"),
        left_out=result.get("left_out") or [],
        warnings=result.get("warnings") or [],
        summary=result.get("summary"),
        cancel_requested_at=row.cancel_requested_at,
    )


def as_csv(shown: SearchView) -> str:
    """RFC 4180 text: a row for each part of each round."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, fieldnames=_CSV_FIELDS, lineterminator="\r\n", extrasaction="ignore")
    writer.writeheader()
    for number, one in enumerate(shown.rounds, 1):
        for part in one.parts:
            error = (part.error or {}).get("detail")
            writer.writerow(part.model_dump() | {"round": number, "kind": one.kind, "rung": one.rung, "error": error})
    return out.getvalue()


def _summary(session: Session, row: Search) -> dict[str, Any]:
    best = (row.result or {}).get("best")
    found = session.get(Verification, best["verification_id"]) if best else None
    return {
        **{name: getattr(row, name) for name in _PLAIN},
        "name": row.request["name"],
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
    rungs = row.rungs or []
    later = [{part["checkpoint_id"] for one in rungs[n:] for part in one["parts"]} for n in range(1, len(rungs) + 1)]
    over = row.state in ("succeeded", "failed", "cancelled")
    return [
        SearchRound(
            **{name: one[name] for name in ("kind", "rung", "stop", "left_s", "predicted_s", "seconds")},
            parts=[
                _part(part, verifications.get(part["verification_id"]), names, _goes_on(part, gone_on, over))
                for part in one["parts"]
            ],
        )
        for one, gone_on in zip(rungs, later, strict=True)
    ]


def _goes_on(part: dict[str, Any], later: set[str], over: bool) -> bool | None:
    if part["checkpoint_id"] in later:
        return True
    return False if over or part["state"] in ("failed", "cancelled") else None


def _part(
    part: dict[str, Any], row: Verification | None, names: dict[str, str], goes_on: bool | None
) -> SearchPart:
    # what is still at work stands on its own row
    state = part["state"] or (row.state if row is not None and row.job_id == part["job_id"] else "queued")
    return SearchPart(
        **{name: part[name] for name in part if name not in ("state", "name")},
        name=names[part["checkpoint_id"]],
        state=state,
        goes_on=goes_on,
    )


def _best(
    result: dict[str, Any], verifications: dict[str, Verification], names: dict[str, str]
) -> SearchBest | None:
    best = result.get("best")
    row = verifications.get(best["verification_id"]) if best else None
    if row is None:
        return None
    found = {split: ((row.result or {}).get(split) or {}).get("box") or {} for split in ("val", "test")}
    return SearchBest(
        **best,
        name=names[best["checkpoint_id"]],
        trained_checkpoint_id=row.trained_checkpoint_id,
        val_map=found["val"].get("map"),
        val_ap50=found["val"].get("ap50"),
        test_map=found["test"].get("map"),
        test_ap50=found["test"].get("ap50"),
    )
