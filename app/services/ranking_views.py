"""A ranking as it is shown: its order, scores, costs, and who is left out.

What the `rank` job writes into `Ranking.result`, and is read here:
{"ranked_by": {"metric", "layer", "level", "quantity", "chosen_by"},
 "order": [{"checkpoint_id", "rank", "value", "z", "interval": [low, high], "zero_point", "gain", "gain_interval", "chance_of_best",
            "group", "near": [ids], "static_ranks": {baseline: rank}}],
 "summary": sentence, "groups": [[ids]], "ties": [[ids]], "left_out": [{"checkpoint_id", "name", "code", "reason"}], "warnings": [{"code", "detail"}],
 "baselines": {baseline: {checkpoint_id: value}},
 "verified_ids": [ids of the verifications it has seen], "verified": [as app/schemas/rankings.py has it]}
"""

from collections import defaultdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Candidate, Checkpoint, Ranking, Score, Verification
from app.queue.states import ENDED, JobState
from app.schemas.rankings import (
    CandidateVerification,
    CandidateView,
    Cost,
    LeftOut,
    RankedBy,
    RankingFilters,
    RankingProgress,
    RankingSummary,
    RankingView,
    ScoreView,
)
from app.services.catalogue import pool_relative
from app.services.verifications import WITHOUT_DETAILS

_SCORE_COLUMNS = ("metric", "layer", "level", "value", "undefined", "seconds", "details")
# Of the details, what has a field of its own.
_SHOWN = frozenset({"null", "z", "interval", "zero_point", "gain", "gain_interval", "notes"})


def view(session: Session, ranking: Ranking, filters: RankingFilters) -> RankingView:
    """The whole ranking. `filters` take candidates out of the order of this view; ranks close up behind them."""
    result = ranking.result or {}
    rows = session.execute(
        select(Candidate, Checkpoint)
        .join(Checkpoint, Checkpoint.id == Candidate.checkpoint_id)
        .where(Candidate.ranking_id == ranking.id)
        .order_by(Candidate.position)
    ).all()
    scores, verified = _scores(session, ranking.id), _verifications(session, ranking.id)
    candidates = [
        _candidate(candidate, checkpoint, scores[checkpoint.id], verified.get(checkpoint.id, []), result)
        for candidate, checkpoint in rows
    ]
    left_out = _left_out(result, candidates)
    filtered = _filtered(candidates, {out.checkpoint_id for out in left_out}, filters)
    left_out += filtered
    gone = {out.checkpoint_id for out in filtered}
    candidates.sort(key=lambda candidate: (candidate.rank is None, candidate.rank or 0))
    ended = sum(candidate.state in ENDED for candidate in candidates)
    return RankingView(
        id=ranking.id,
        name=ranking.request.get("name"),
        dataset_id=ranking.dataset_id,
        state=ranking.state,
        stage=ranking.stage,
        request=ranking.request,
        progress=RankingProgress(done=ended, total=len(rows), fraction=ended / len(rows) if rows else 1.0),
        ranked_by=_ranked_by(result),
        candidates=candidates,
        left_out=left_out,
        summary=_summary(result, gone),
        groups=_staying(result.get("groups"), gone, 1),
        ties=_staying(result.get("ties"), gone, 2),
        warnings=result.get("warnings") or [],
        verified=result.get("verified") or [],
        error=ranking.error,
        cancel_requested_at=ranking.cancel_requested_at,
        created_at=ranking.created_at,
        started_at=ranking.started_at,
        finished_at=ranking.finished_at,
    )


def summary(ranking: Ranking) -> RankingSummary:
    return RankingSummary(
        id=ranking.id,
        name=ranking.request.get("name"),
        dataset_id=ranking.dataset_id,
        state=ranking.state,
        stage=ranking.stage,
        checkpoint_ids=ranking.request.get("checkpoint_ids", []),
        error=ranking.error,
        created_at=ranking.created_at,
        started_at=ranking.started_at,
        finished_at=ranking.finished_at,
    )


def reason_against(cost: Cost, filters: RankingFilters) -> str | None:
    """Why `filters` leave a candidate out, None where they do not. A cost that is not known keeps no limit."""
    reasons = []
    for unit, found, most in (
        ("parameters", cost.parameters, filters.max_parameters),
        ("bytes of memory", cost.peak_memory_bytes, filters.max_memory_bytes),
        ("ms per image", cost.ms_per_image, filters.max_ms_per_image),
    ):
        if most is not None and found is None:
            reasons.append(f"its {unit} are not known, and at most {most:,} are asked for")
        elif most is not None and found > most:
            reasons.append(f"{found:,} {unit}, and at most {most:,} are asked for")
    if filters.licences and (cost.licence or "").casefold() not in {
        name.casefold() for name in filters.licences
    }:
        reasons.append(
            f"its licence is {cost.licence or 'not known'}; asked for: {', '.join(filters.licences)}"
        )
    return "; ".join(reasons) or None


def _scores(session: Session, ranking_id: str) -> dict[str, list[ScoreView]]:
    # columns, not records: this is what is polled, and a record costs several times as much
    columns = [getattr(Score, name) for name in _SCORE_COLUMNS]
    relative = pool_relative()
    query = select(Score.checkpoint_id, *columns).where(Score.ranking_id == ranking_id)
    found: dict[str, list[ScoreView]] = defaultdict(list)
    for checkpoint_id, *values in session.execute(query.order_by(Score.metric, Score.layer, Score.level)):
        row = dict(zip(_SCORE_COLUMNS, values, strict=True))
        kept = row["details"] or {}
        row["details"] = {name: value for name, value in kept.items() if name not in _SHOWN} or None
        found[checkpoint_id].append(
            ScoreView(
                **row,
                null=kept.get("null"),
                z=kept.get("z"),
                interval=kept.get("interval"),
                zero_point=kept.get("zero_point"),
                gain=kept.get("gain"),
                gain_interval=kept.get("gain_interval"),
                notes=kept.get("notes") or [],
                pool_relative=row["metric"] in relative,
            )
        )
    return found


def _verifications(session: Session, ranking_id: str) -> dict[str, list[Verification]]:
    """By candidate, the last asked for last."""
    query = select(Verification).options(*WITHOUT_DETAILS)
    found: dict[str, list[Verification]] = defaultdict(list)
    for row in session.scalars(query.where(Verification.ranking_id == ranking_id).order_by(Verification.position)):
        found[row.checkpoint_id].append(row)
    return found


def _map(rows: list[Verification]) -> float | None:
    values = [row.map for row in rows if row.terms == rows[-1].terms]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _verification(row: Verification) -> CandidateVerification:
    return CandidateVerification(
        id=row.id,
        seed=row.request["seed"],
        state=row.state,
        map=row.map,
        ap50=row.ap50,
        trained_checkpoint_id=row.trained_checkpoint_id,
        error=row.error,
    )


def _summary(result: dict[str, Any], gone: set[str]) -> str | None:
    said = result.get("summary")
    ordered = {row["checkpoint_id"] for row in result.get("order") or []}
    # places and chances in the sentence are those of the whole ranking
    return f"before the filters of this view: {said}" if said and gone & ordered else said


def _staying(groups: list[list[str]] | None, gone: set[str], least: int) -> list[list[str]]:
    """The groups without those that filters took out, where at least so many stay."""
    left = [[id for id in group if id not in gone] for group in groups or []]
    return [group for group in left if len(group) >= least]


def _candidate(
    candidate: Candidate,
    checkpoint: Checkpoint,
    scores: list[ScoreView],
    verified: list[Verification],
    result: dict[str, Any],
) -> CandidateView:
    placed = next((row for row in result.get("order") or [] if row["checkpoint_id"] == checkpoint.id), {})
    cost = candidate.cost or {}
    static_ranks = placed.get("static_ranks") or {}
    baselines = {
        name: {"value": values.get(checkpoint.id), "rank": static_ranks.get(name)}
        for name, values in (result.get("baselines") or {}).items()
    }
    return CandidateView(
        checkpoint_id=checkpoint.id,
        name=checkpoint.name,
        rank=candidate.rank,
        state=candidate.state,
        error=candidate.error,
        job_id=candidate.job_id,
        value=placed.get("value"),
        z=placed.get("z"),
        interval=placed.get("interval"),
        zero_point=placed.get("zero_point"),
        gain=placed.get("gain"),
        gain_interval=placed.get("gain_interval"),
        chance_of_best=placed.get("chance_of_best"),
        group=placed.get("group"),
        near=placed.get("near") or [],
        scores=scores,
        cost=Cost(
            parameters=cost.get("parameters", checkpoint.parameters),
            peak_memory_bytes=cost.get("peak_memory_bytes"),
            ms_per_image=cost.get("ms_per_image"),
            device=cost.get("device"),
            licence=checkpoint.licence,
        ),
        timings=candidate.timings or {},
        warnings=candidate.warnings or [],
        map=_map(verified),
        verifications=[_verification(row) for row in verified],
        baselines=baselines,
    )


def _ranked_by(result: dict[str, Any]) -> RankedBy | None:
    found = result.get("ranked_by")
    return None if found is None else RankedBy(**{field: found.get(field) for field in RankedBy.model_fields})


def _left_out(result: dict[str, Any], candidates: list[CandidateView]) -> list[LeftOut]:
    """Those the `rank` job left out, and those that ended badly since or before there was one."""
    left_out = [
        LeftOut(**{field: row[field] for field in LeftOut.model_fields})
        for row in result.get("left_out") or []
    ]
    known = {row.checkpoint_id for row in left_out}
    for candidate in candidates:
        if candidate.state in (JobState.FAILED, JobState.CANCELLED) and candidate.checkpoint_id not in known:
            reason = (candidate.error or {}).get("detail") or f"it was {candidate.state}"
            left_out.append(
                LeftOut(
                    checkpoint_id=candidate.checkpoint_id,
                    name=candidate.name,
                    code=candidate.state,
                    reason=reason,
                )
            )
    return left_out


def _filtered(candidates: list[CandidateView], already: set[str], filters: RankingFilters) -> list[LeftOut]:
    out = []
    for candidate in candidates:
        reason = reason_against(candidate.cost, filters)
        if reason is None or candidate.checkpoint_id in already or candidate.state not in ENDED:
            continue
        out.append(
            LeftOut(
                checkpoint_id=candidate.checkpoint_id, name=candidate.name, code="filtered", reason=reason
            )
        )
    gone = {row.checkpoint_id for row in out}
    before = {
        candidate.checkpoint_id: candidate.rank for candidate in candidates if candidate.rank is not None
    }
    for candidate in candidates:
        if candidate.rank is not None:
            better_gone = sum(before.get(id, candidate.rank) < candidate.rank for id in gone)
            candidate.rank = None if candidate.checkpoint_id in gone else candidate.rank - better_gone
    return out
