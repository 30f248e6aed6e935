"""Which differences of an order are noise: from the intervals of the one score that orders it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from worker.metrics import Score, compare
from worker.ranking.records import Scored

# draws times candidates: bounds the memory of a large pool
MOST_DRAWN = 4_000_000
MOST_DRAWS = 20_000
NOT_CALIBRATED = "it was scored without one; `calibrate: true` gives every score one"


@dataclass(frozen=True)
class Certainty:
    """groups: ids, best first; those of one group cannot be told apart from its first. Everyone with an interval is in one.

    near: by id, those whose difference from it is not clear, whatever their groups. chance_of_best: by id, sums to 1 over
    the candidates with an interval. unknown: id -> why it has no interval.
    """

    groups: tuple[tuple[str, ...], ...] = ()
    chance_of_best: Mapping[str, float] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    near: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def certainty(valued: Sequence[tuple[str, Scored]], seed: int = 0) -> Certainty:
    """How sure the order of `valued` is: (id, score by the metric that orders), best first.

    Candidates of equal value stay in one group. An interval over other groups of images than most have is not
    comparable, and counts as none.
    """
    if not valued:
        return Certainty((), {}, {})
    sizes = Counter(len(each.interval.replicates) for _, each in valued if each.interval)
    usual = sizes.most_common(1)[0][0] if sizes else 0
    unknown = {id: reason for id, each in valued if (reason := _why_none(each, usual))}
    known = [(id, each) for id, each in valued if id not in unknown]
    if not known:
        return Certainty((), {}, unknown)
    found = compare(
        {id: Score(each.value, None, 0.0, interval=each.interval) for id, each in known},
        known[0][1].metric,
        draws=min(MOST_DRAWS, MOST_DRAWN // len(known)),
        seed=seed,
    )
    groups: list[list[str]] = []
    before: tuple[float | None, int] = (None, 0)
    for id, each in known:
        if groups and (each.value == before[0] or found.group[id] == before[1]):
            groups[-1].append(id)
        else:
            groups.append([id])
        before = (each.value, found.group[id])
    return Certainty(tuple(map(tuple, groups)), found.chance_of_best, unknown, found.near)


def sentence(names: Mapping[str, str], sure: Certainty) -> str:
    """What a reader should take from the order; `names` of the ordered candidates by id, best first."""
    if len(names) < 2:
        return "only one candidate has a place" if names else "no candidate has a place"
    if not sure.groups:
        return "no score has an interval, so it is not known which candidates can be told apart"
    place = {id: position for position, id in enumerate(names, 1)}
    best = max(sure.chance_of_best, key=sure.chance_of_best.__getitem__)
    parts = [
        f"candidates {_places([place[id] for id in group])} cannot be told apart"
        for group in sure.groups
        if len(group) > 1
    ]
    if not parts and len(sure.groups) > 1:
        parts = ["each candidate can be told apart from the next"]
    if sure.unknown:
        parts.append(f"nothing is known of {_places([place[id] for id in sure.unknown])}, without interval")
    if len(sure.groups) > 1 or len(sure.groups[0]) > 1:
        parts.append(f"{names[best]} most probably has the highest score, {sure.chance_of_best[best]:.0%}")
    return "; ".join(parts)


def _why_none(scored: Scored, usual: int) -> str | None:
    if scored.interval is None:
        return next((note for note in scored.notes if note.startswith("no interval")), NOT_CALIBRATED)
    return None if len(scored.interval.replicates) == usual else "its interval is over other groups of images"


def _places(places: Sequence[int]) -> str:
    """2 and 3; 2 to 4; 2, 4 and 5"""
    if len(places) == 1:
        return str(places[0])
    if len(places) > 2 and places[-1] - places[0] == len(places) - 1:
        return f"{places[0]} to {places[-1]}"
    return f"{', '.join(map(str, places[:-1]))} and {places[-1]}"
