"""A ranking as it is shown: its order, scores, costs, and who is left out. What is kept of it: app/db/documents."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.db.documents import Placed, RankingResult
from app.db.tables import Candidate, Checkpoint, Ranking, Score, Verification
from app.queue.ranking_order import OrderBy, order_of
from app.queue.states import ENDED, JobState
from app.schemas.ranking_views import (
    CandidateVerification,
    CandidateView,
    Cost,
    LeftOut,
    OrdersAgree,
    RankedBy,
    RankingProgress,
    RankingSummary,
    RankingView,
    ScoreView,
    Verified,
)
from app.schemas.rankings import RankingFilters
from app.services import ranking_beliefs, ranking_costs
from app.services.catalogue import pool_relative
from app.services.verifications import DETAILS
from app.services.work_views import details_of, summary_of

_SCORE_COLUMNS = ("metric", "layer", "level", "value", "undefined", "seconds", "details")
# before the `rank` job has written one
_NOTHING_YET: RankingResult = {
    "ranked_by": None,
    "order": [],
    "summary": None,
    "groups": [],
    "ties": [],
    "left_out": [],
    "warnings": [],
    "baselines": {},
    "verified": [],
}
_NO_PLACE: Placed = {
    "checkpoint_id": "",
    "name": "",
    "rank": None,
    "value": None,
    "z": None,
    "interval": None,
    "near": [],
    "static_ranks": {},
}
# Details that have a field of their own.
_SHOWN = frozenset({"null", "z", "interval", "zero_point", "gain", "gain_interval", "notes"})


def view(
    session: Session,
    ranking: Ranking,
    filters: RankingFilters,
    asked: OrderBy | None = None,
    frontier: bool | None = None,
) -> RankingView:
    """The whole ranking. `filters` take candidates out of this view, then `frontier` those that are not on it (true) or are
    (false); ranks close up behind them. asked: for ranks by what is predicted now, where who has no prediction has none, or by
    the score; None: as `ranking_order` says."""
    result = ranking.result or _NOTHING_YET
    belief, believed = ranking_beliefs.shown(ranking)
    rows = session.execute(
        select(Candidate, Checkpoint)
        .join(Checkpoint, Checkpoint.id == Candidate.checkpoint_id)
        .where(Candidate.ranking_id == ranking.id)
        .order_by(Candidate.position)
    ).all()
    scores, verified = _scores(session, ranking.id), _verifications(session, ranking.id)
    placed = {row["checkpoint_id"]: row for row in result["order"]}
    costs = ranking_costs.costs_of(session, [(candidate, checkpoint) for candidate, checkpoint in rows])
    candidates = [
        _candidate(
            candidate,
            checkpoint,
            scores[checkpoint.id],
            verified.get(checkpoint.id, []),
            placed.get(checkpoint.id, _NO_PLACE),
            result["baselines"],
            costs[checkpoint.id],
            believed.get(checkpoint.id, ranking_beliefs.NOTHING),
        )
        for candidate, checkpoint in rows
    ]
    order_by = order_of(ranking, asked)
    if order_by == "predicted_map":
        ranking_beliefs.rank(candidates)
        said = ranking_beliefs.sentence(candidates) if ranking.result else None
    else:
        said = result["summary"]
        if belief is not None and asked is None:
            belief.warnings = [*belief.warnings, *ranking_beliefs.why_score(ranking, candidates)]
    left_out = _left_out(result, candidates)
    already = {out.checkpoint_id for out in left_out}
    filtered = _filtered(candidates, already, lambda one: ranking_costs.reason_against(one.cost, filters))
    ranked_by = _ranked_by(result)
    ranking_costs.mark_frontier(candidates, ranked_by.quantity if ranked_by else None)
    if frontier is not None:
        already |= {out.checkpoint_id for out in filtered}
        filtered += _filtered(candidates, already, lambda one: _off_frontier(one, frontier))
    left_out += filtered
    gone = {out.checkpoint_id for out in filtered}
    candidates.sort(key=lambda candidate: (candidate.rank is None, candidate.rank or 0))
    ended = sum(candidate.state in ENDED for candidate in candidates)
    return RankingView(
        **_summary(ranking),
        **details_of(ranking),
        progress=RankingProgress(done=ended, total=len(rows), fraction=ended / len(rows) if rows else 1.0),
        order_by=order_by,
        ranked_by=ranked_by,
        candidates=candidates,
        left_out=left_out,
        summary=_in_a_sentence(said, result, gone),
        belief=belief,
        groups=_staying(result.get("groups") or [], gone, 1),
        ties=_staying(result["ties"], gone, 2),
        warnings=result["warnings"],
        verified=[Verified.model_validate(one) for one in result.get("verified") or []],
        agreement=OrdersAgree.model_validate(agree) if (agree := result.get("agreement")) else None,
    )


def summary(_: Session, ranking: Ranking) -> RankingSummary:
    return RankingSummary(**_summary(ranking))


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
    query = select(Verification).options(*(defer(getattr(Verification, name)) for name in DETAILS))
    found: dict[str, list[Verification]] = defaultdict(list)
    for row in session.scalars(
        query.where(Verification.ranking_id == ranking_id).order_by(Verification.position)
    ):
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


def _summary(ranking: Ranking) -> dict[str, Any]:
    own = {
        "dataset_id": ranking.dataset_id,
        "checkpoint_ids": ranking.request.get("checkpoint_ids", []),
    }
    return summary_of(ranking) | own


def _in_a_sentence(said: str | None, result: RankingResult, gone: set[str]) -> str | None:
    ordered = {row["checkpoint_id"] for row in result["order"]}
    # places and chances in the sentence are those of the whole ranking
    return f"before the filters of this view: {said}" if said and gone & ordered else said


def _staying(groups: list[list[str]], gone: set[str], least: int) -> list[list[str]]:
    """The groups without those that filters took out, where at least so many stay."""
    left = [[id for id in group if id not in gone] for group in groups]
    return [group for group in left if len(group) >= least]


def _candidate(
    candidate: Candidate,
    checkpoint: Checkpoint,
    scores: list[ScoreView],
    verified: list[Verification],
    placed: Placed,
    baselines: dict[str, dict[str, float | None]],
    cost: Cost,
    believed: ranking_beliefs.Said,
) -> CandidateView:
    static_ranks = placed["static_ranks"]
    return CandidateView(
        checkpoint_id=checkpoint.id,
        name=checkpoint.name,
        rank=candidate.rank,
        state=candidate.state,
        error=candidate.error,
        job_id=candidate.job_id,
        value=placed["value"],
        z=placed["z"],
        interval=placed["interval"],
        zero_point=placed.get("zero_point"),
        gain=placed.get("gain"),
        gain_interval=placed.get("gain_interval"),
        **believed,
        score_chance_of_highest=placed.get("score_chance_of_highest", placed.get("chance_of_best")),
        group=placed.get("group"),
        near=placed["near"],
        scores=scores,
        cost=cost,
        frontier=False,
        timings=candidate.timings or {},
        warnings=candidate.warnings or [],
        map=_map(verified),
        verifications=[_verification(row) for row in verified],
        baselines={
            name: {"value": values.get(checkpoint.id), "rank": static_ranks.get(name)}
            for name, values in baselines.items()
        },
    )


def _ranked_by(result: RankingResult) -> RankedBy | None:
    found = result["ranked_by"]
    if found is None:
        return None
    return RankedBy(
        metric=found["metric"],
        layer=found["layer"],
        level=found["level"],
        quantity=found.get("quantity"),
        chosen_by=found["chosen_by"],
    )


def _left_out(result: RankingResult, candidates: list[CandidateView]) -> list[LeftOut]:
    """Candidates that the `rank` job left out, and those that failed or were cancelled without one."""
    left_out = [LeftOut(**row) for row in result["left_out"]]
    known = {row.checkpoint_id for row in left_out}
    for candidate in candidates:
        if candidate.state in (JobState.FAILED, JobState.CANCELLED) and candidate.checkpoint_id not in known:
            left_out.append(
                LeftOut(
                    checkpoint_id=candidate.checkpoint_id,
                    name=candidate.name,
                    code=candidate.state,
                    reason=(candidate.error or {}).get("detail") or f"it was {candidate.state}",
                )
            )
    return left_out


def _off_frontier(candidate: CandidateView, wanted: bool) -> str | None:
    if candidate.frontier is wanted:
        return None
    return "a faster one is at least as good" if wanted else "nothing faster beats it"


def _filtered(
    candidates: list[CandidateView], already: set[str], against: Callable[[CandidateView], str | None]
) -> list[LeftOut]:
    out = []
    for candidate in candidates:
        reason = against(candidate)
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
