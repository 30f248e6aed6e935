"""From scores to an order: pure, so that the same scores always give the same ranking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from worker.metrics import Interval
from worker.ranking.cautions import cautions, why_no_gain
from worker.ranking.certainty import Certainty, certainty, sentence
from worker.ranking.filters import reason_against
from worker.ranking.records import GAIN, Candidate, Filters, LeftOut, Ordering, RankBy, Row, Scored, Target
from worker.ranking.rule import at, choose, is_defined, is_size_matched, quantity, resolved

STATIC_BASELINES = ("parameters", "coco_box_map", "imagenet_top1", "rf100_vl_ap")
# of bodies alone, or of few families: named only where a candidate has it
RARE_BASELINES = frozenset({"imagenet_top1", "rf100_vl_ap"})


def order(
    candidates: Sequence[Candidate],
    target: Target,
    rank_by: RankBy | None = None,
    filters: Filters | None = None,
    seed: int = 0,
) -> Ordering:
    """Orders candidates by one score or its gain, higher first, and says who is left out and what to beware of.

    Filters come first: a candidate they exclude has no part in choosing the metric. Equal values share a rank
    and stand in the order of name and id. Which of the others can be told apart is read from their intervals;
    seed: of the draws for the chance of being best.
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

    matching, by_name, asked = is_size_matched(asked), asked.layer is not None, resolved(running, asked)
    place = choose(running, asked)
    measure = quantity(running, place, asked)
    valued: list[tuple[Candidate, Scored]] = []
    for candidate in running:
        found = _score_at(candidate, place, asked, measure)
        if isinstance(found, LeftOut):
            left_out.append(found)
        else:
            valued.append((candidate, found))
    valued.sort(key=lambda pair: (-getattr(pair[1], measure), pair[0].name, pair[0].id))

    ranked = [candidate for candidate, _ in valued]
    static = {
        name: {candidate.id: getattr(candidate, name) for candidate in ranked}
        for name in baselines_of(ranked)
    }
    sure = certainty([(candidate.id, scored.measured_by(measure)) for candidate, scored in valued], seed)
    rows = _rows(valued, static, sure, measure)
    ties = _ties(rows, measure)
    metric, layer, level = place or (None, None, None)
    return Ordering(
        metric=metric,
        layer=layer,
        level=level,
        chosen_by=_chosen_by(asked, matched=matching and asked.layer is not None),
        rows=rows,
        ties=ties,
        left_out=tuple(left_out),
        warnings=cautions(
            valued,
            target,
            place,
            ties,
            sure.unknown,
            raw_by_default=measure != GAIN and asked.quantity is None,
            # by default it is no surprise: layers were named that are not among the maps, say
            unmatched=matching and by_name and asked.layer is None,
        ),
        static=static,
        groups=sure.groups,
        summary=sentence({row.id: row.name for row in rows}, sure),
        quantity=measure,
    )


def baselines_of(candidates: Iterable[Candidate]) -> list[str]:
    """Names of the static baselines, which are fields of a candidate."""
    known = list(candidates)
    return [
        name
        for name in STATIC_BASELINES
        if name not in RARE_BASELINES or any(getattr(each, name) is not None for each in known)
    ]


def _chosen_by(asked: RankBy, *, matched: bool) -> str:
    if matched:
        return "size of the objects"
    return "request" if None not in (asked.metric, asked.layer, asked.level) else "default rule"


def _rows(
    valued: Sequence[tuple[Candidate, Scored]],
    static: Mapping[str, Mapping[str, float | None]],
    sure: Certainty,
    measure: str,
) -> tuple[Row, ...]:
    values = {candidate.id: float(getattr(scored, measure)) for candidate, scored in valued}
    ranks = _ranks(values)
    static_ranks = {name: _ranks(of) for name, of in static.items()}
    group = {id: number for number, ids in enumerate(sure.groups, 1) for id in ids}
    return tuple(
        Row(
            rank=ranks[candidate.id],
            id=candidate.id,
            name=candidate.name,
            value=scored.known_value,
            near=tuple(
                other
                for other, its in values.items()
                if other != candidate.id
                and (its == values[candidate.id] or other in sure.near.get(candidate.id, ()))
            ),
            static_ranks={name: static_ranks[name].get(candidate.id) for name in static},
            z=scored.z,
            interval=_limits(scored.interval),
            score_chance_of_highest=sure.chance_of_best.get(candidate.id),
            group=group.get(candidate.id),
            zero_point=scored.zero_point,
            gain=scored.gain,
            gain_interval=_limits(scored.gain_interval),
        )
        for candidate, scored in valued
    )


def _limits(interval: Interval | None) -> tuple[float, float] | None:
    return None if interval is None else (interval.low, interval.high)


def _score_at(
    candidate: Candidate, place: tuple[str, str, str] | None, asked: RankBy, measure: str
) -> Scored | LeftOut:
    if place is None:
        wanted = ", ".join(
            f"{name} {value}" for name, value in vars(asked).items() if value and name != "quantity"
        )
        return LeftOut(
            candidate.id, candidate.name, "no_score", f"it has no score with {wanted or 'any metric'}"
        )
    metric, layer, level = place
    scored = at(candidate, place)
    if scored is None:
        have = sorted({scored.layer for scored in candidate.scores if scored.metric == metric})
        reason = f"it has no {metric} at {layer} ({level}); it has it at: {', '.join(have) or 'no layer'}"
        return LeftOut(candidate.id, candidate.name, "no_score", reason)
    if not is_defined(scored):
        why = scored.undefined or f"its value is {scored.value}"
        return LeftOut(
            candidate.id, candidate.name, "undefined", f"{metric} at {layer} ({level}) is undefined: {why}"
        )
    if not is_defined(scored.measured_by(measure)):
        reason = f"the gain of {metric} at {layer} ({level}) is undefined: {why_no_gain(scored)}"
        return LeftOut(candidate.id, candidate.name, "undefined", reason)
    return scored


def _ranks(values: Mapping[str, float | None]) -> dict[str, int]:
    """Rank by decreasing value, 1 + how many are greater; those without a value have no rank."""
    known = {key: value for key, value in values.items() if value is not None}
    return {key: 1 + sum(other > value for other in known.values()) for key, value in known.items()}


def _ties(rows: Sequence[Row], measure: str) -> tuple[tuple[str, ...], ...]:
    """Ids of rows of one group or of equal value, each set of two or more once, in the order of its first."""
    runs: list[list[Row]] = []
    for row in rows:
        last = runs[-1][-1] if runs else None
        equal = last is not None and getattr(row, measure) == getattr(last, measure)
        if last and (equal or (row.group is not None and row.group == last.group)):
            runs[-1].append(row)
        else:
            runs.append([row])
    return tuple(tuple(row.id for row in run) for run in runs if len(run) > 1)
