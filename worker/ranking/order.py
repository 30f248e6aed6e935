"""From scores to an order: pure, so that the same scores always give the same ranking."""

from __future__ import annotations

from collections.abc import Sequence

from worker.ranking.cautions import cautions
from worker.ranking.filters import reason_against
from worker.ranking.records import Candidate, Filters, LeftOut, Ordering, RankBy, Row, Scored, Target
from worker.ranking.rule import choose, is_defined

# Values closer than this share of the spread between best and worst are called near: a convention until
# intervals say it better, chosen so that an order of seven is not held apart by rounding.
NEAR_SHARE_OF_SPREAD = 0.02
_NEAR_RELATIVE = 1e-6

STATIC_BASELINES = ("parameters", "coco_box_map")


def order(
    candidates: Sequence[Candidate],
    target: Target,
    rank_by: RankBy | None = None,
    filters: Filters | None = None,
) -> Ordering:
    """Orders candidates by one score, higher first, and says who is left out and what to beware of.

    Filters come first: a candidate they exclude has no part in choosing the metric. Equal values share a rank
    and stand in the order of name and id.
    """
    asked, limits = rank_by or RankBy(), filters or Filters()
    left_out: list[LeftOut] = []
    running: list[Candidate] = []
    for candidate in candidates:
        if candidate.error is not None:
            left_out.append(LeftOut(candidate.id, candidate.name, "failed", candidate.error))
        elif reason := reason_against(candidate, limits):
            left_out.append(LeftOut(candidate.id, candidate.name, "filtered", reason))
        elif not candidate.scores:
            left_out.append(LeftOut(candidate.id, candidate.name, "no_score", "it has no scores"))
        else:
            running.append(candidate)

    place = choose(running, asked)
    valued: list[tuple[Candidate, float]] = []
    for candidate in running:
        found = _score_at(candidate, place, asked)
        if isinstance(found, LeftOut):
            left_out.append(found)
        else:
            valued.append((candidate, found))
    valued.sort(key=lambda pair: (-pair[1], pair[0].name, pair[0].id))

    values = {candidate.id: value for candidate, value in valued}
    ranked = [candidate for candidate, _ in valued]
    static = {
        name: {candidate.id: _static(candidate, name) for candidate in ranked} for name in STATIC_BASELINES
    }
    ranks = _ranks(values)
    static_ranks = {name: _ranks(of) for name, of in static.items()}
    margin = _margin(list(values.values()))
    rows = tuple(
        Row(
            rank=ranks[candidate.id],
            id=candidate.id,
            name=candidate.name,
            value=value,
            near=tuple(
                other for other, its in values.items() if other != candidate.id and abs(its - value) <= margin
            ),
            static_ranks={name: static_ranks[name].get(candidate.id) for name in STATIC_BASELINES},
        )
        for candidate, value in valued
    )
    ties = _groups(rows, margin)
    metric, layer, level = place or (None, None, None)
    return Ordering(
        metric=metric,
        layer=layer,
        level=level,
        chosen_by="request" if None not in (asked.metric, asked.layer, asked.level) else "default rule",
        rows=rows,
        ties=ties,
        left_out=tuple(left_out),
        warnings=cautions(ranked, target, place, ties),
        static=static,
    )


def _score_at(candidate: Candidate, place: tuple[str, str, str] | None, asked: RankBy) -> float | LeftOut:
    if place is None:
        wanted = ", ".join(f"{name} {value}" for name, value in vars(asked).items() if value)
        return LeftOut(
            candidate.id, candidate.name, "no_score", f"it has no score with {wanted or 'any metric'}"
        )
    metric, layer, level = place
    found = [scored for scored in candidate.scores if (scored.metric, scored.layer, scored.level) == place]
    if not found:
        have = sorted({scored.layer for scored in candidate.scores if scored.metric == metric})
        reason = f"it has no {metric} at {layer} ({level}); it has it at: {', '.join(have) or 'no layer'}"
        return LeftOut(candidate.id, candidate.name, "no_score", reason)
    scored: Scored = found[0]
    if not is_defined(scored):
        why = scored.undefined or f"its value is {scored.value}"
        return LeftOut(
            candidate.id, candidate.name, "undefined", f"{metric} at {layer} ({level}) is undefined: {why}"
        )
    return float(scored.value)


def _static(candidate: Candidate, name: str) -> float | None:
    return {"parameters": candidate.parameters, "coco_box_map": candidate.coco_box_map}[name]


def _ranks(values: dict[str, float | None]) -> dict[str, int]:
    """Rank by decreasing value, 1 + how many are greater; those without a value have no rank."""
    known = {key: value for key, value in values.items() if value is not None}
    return {key: 1 + sum(other > value for other in known.values()) for key, value in known.items()}


def _margin(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    spread = NEAR_SHARE_OF_SPREAD * (max(values) - min(values)) if len(values) > 2 else 0.0
    return max(spread, _NEAR_RELATIVE * max(abs(value) for value in values))


def _groups(rows: Sequence[Row], margin: float) -> tuple[tuple[str, ...], ...]:
    """Runs of neighbours in the order, each no further than `margin` from the next, of two or more."""
    groups: list[list[Row]] = []
    for row in rows:
        if groups and abs(groups[-1][-1].value - row.value) <= margin:
            groups[-1].append(row)
        else:
            groups.append([row])
    return tuple(tuple(row.id for row in group) for group in groups if len(group) > 1)
