"""What the service orders by when nobody says otherwise, as one more score of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from worker.ranking.records import GAIN, Candidate, RankBy, Scored
from worker.ranking.rule import choose, quantity
from worker.studies.measures.gains import gain_place, is_gain
from worker.studies.measures.observations import Observation, Place

DEFAULT_RULE: Place = ("default rule", "as chosen", "as chosen")


def chosen_places(observations: Sequence[Observation]) -> dict[str, Place | None]:
    """Dataset to the score, or the gain, that the default rule orders its candidates by; None where there is none."""
    return {
        dataset: _chosen([_candidate(o) for o in observations if o.dataset == dataset])
        for dataset in dict.fromkeys(o.dataset for o in observations)
    }


def with_default_rule(observations: Sequence[Observation]) -> list[Observation]:
    """The observations with DEFAULT_RULE among their scores: for each dataset the value of the score chosen there.

    A metric alone is undefined where its dataset lacks something (a second class, say); the rule then turns to
    another, so this is the one row that stands on all datasets.
    """
    places = chosen_places(observations)
    found = []
    for each in observations:
        place = places[each.dataset]
        if place is not None and place in each.scores:
            found.append(replace(each, scores={**each.scores, DEFAULT_RULE: each.scores[place]}))
        else:
            reason = each.undefined.get(place, "it was not scored there") if place else "nothing was scored"
            found.append(replace(each, undefined={**each.undefined, DEFAULT_RULE: reason}))
    return found


def _chosen(candidates: Sequence[Candidate]) -> Place | None:
    place = choose(candidates, RankBy())
    if place is None or quantity(candidates, place, RankBy()) != GAIN:
        return place
    return gain_place(place)


def _candidate(each: Observation) -> Candidate:
    """With the zero points that the gains among the scores stand for."""
    scored = []
    for place, value in each.scores.items():
        gain = each.scores.get(gain_place(place))
        if not is_gain(place[0]):
            scored.append(Scored(*place, value, zero_point=None if gain is None else value - gain))
    scored += [
        Scored(*place, None, reason) for place, reason in each.undefined.items() if not is_gain(place[0])
    ]
    return Candidate(
        id=each.candidate, name=each.candidate, scores=tuple(scored), object_pixels=each.object_pixels
    )
