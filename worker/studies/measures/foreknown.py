"""What stands beside every score of a study: the belief, the blind list and half of the training.

The belief (worker/ranking/belief) of each dataset stands on what detrank ships and on the study's trainings on its other
datasets, never on this one. The blind list is a candidate's mean mAP on the others, and needs no score: it is the baseline
that a score has to beat (docs/belief.md). Half of the training is validation mAP there; it shares its noise with the
training's own end, which flatters it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from worker.ranking.belief import Evidence, Facts, Learned, Observed, TargetFacts, believe
from worker.ranking.belief.design import standardised
from worker.ranking.belief.facts import scores_of
from worker.ranking.belief.learn import learn
from worker.ranking.belief.records import MAPS, SCORES
from worker.studies.measures.correlation import STATIC
from worker.studies.measures.gains import gain_place
from worker.studies.measures.observations import Observation, Place
from worker.studies.measures.signals import TRAINED

BELIEF: Place = ("belief", "all that is known", "before training")
HALF: Place = ("half_training", TRAINED, "validation images")
BLIND = "static_blind_list"
BLIND_PLACE: Place = (BLIND, STATIC, STATIC)
NO_BELIEF = "no training on another dataset is known, so there is nothing to believe"
NO_FACTS = "its weights are not known, so nothing can be known of it"
NO_LIST = "on no other dataset of the study was every one of these candidates trained"
NO_HALF = "its trainings were not looked at between 40 % and 60 % of their steps"
LOCAL = "local"
AROUND_HALF = (0.4, 0.6)


@dataclass(frozen=True)
class Known:
    """Of a study's names: datasets and candidates as a belief knows them. A dataset's key is its digest; scores come from
    the observations. half: (dataset, candidate) to validation mAP at half of the training."""

    targets: Mapping[str, TargetFacts]
    candidates: Mapping[str, Facts]
    half: Mapping[tuple[str, str], float]


def with_foreknown(observations: Sequence[Observation], known: Known, learned: Learned) -> list[Observation]:
    """The observations with BELIEF and HALF among their scores and BLIND among their static figures, each undefined with the
    reason where there is too little."""
    evidence = _evidence(observations, known)
    found = []
    for dataset in dict.fromkeys(each.dataset for each in observations):
        group = [each for each in observations if each.dataset == dataset]
        beliefs = _beliefs(group, evidence, known, learned)
        blind = _blind(group, observations)
        for each in group:
            values: dict[Place, float | str] = {
                BELIEF: beliefs.get(each.candidate, NO_FACTS) if beliefs is not None else NO_BELIEF,
                HALF: known.half.get((each.dataset, each.candidate), NO_HALF),
            }
            numbers = {place: value for place, value in values.items() if not isinstance(value, str)}
            reasons = {place: value for place, value in values.items() if isinstance(value, str)}
            if blind is None:
                reasons[BLIND_PLACE] = NO_LIST
            found.append(
                replace(
                    each,
                    scores={**each.scores, **numbers},
                    undefined={**each.undefined, **reasons},
                    static={**each.static, BLIND: None if blind is None else blind[each.candidate]},
                )
            )
    return found


def half_of(curves: Iterable[tuple[Iterable[tuple[int, float]], int]]) -> float | None:
    """Mean over trainings of the validation mAP nearest to half of the steps; None where one was not looked at about then.

    curves: of each training (iteration, mAP) of every look, and how many steps it has.
    """
    found = []
    for points, steps in curves:
        low, high = AROUND_HALF
        near = [(abs(at / steps - 0.5), value) for at, value in points if low <= at / steps <= high]
        if not near:
            return None
        found.append(min(near)[1])
    return float(np.mean(found)) if found else None


def _evidence(observations: Sequence[Observation], known: Known) -> list[Evidence]:
    facts = _scored(observations, known)
    return [
        Evidence(facts[each.dataset, each.candidate], known.targets[each.dataset], Observed(value))
        for each in observations
        if (each.dataset, each.candidate) in facts and each.dataset in known.targets
        for value in each.map_by_seed.values()
    ]


def _beliefs(
    group: Sequence[Observation], evidence: Sequence[Evidence], known: Known, learned: Learned
) -> dict[str, float] | None:
    """Candidate to the mAP that is believed; None where there is nothing that it could stand on."""
    target = known.targets.get(group[0].dataset)
    facts = _scored(group, known)
    if target is None or not facts:
        return None
    others = [each for each in evidence if each.target.key != target.key]
    own = learned.without_digest(target.key)
    if own is not learned and own.evidence:
        # what was learned from this dataset too is learned anew
        own = learn(own.evidence, own.studies, own.budget)
    if not others and not own.evidence:
        return None
    names = [each.candidate for each in group if (each.dataset, each.candidate) in facts]
    found = believe([facts[group[0].dataset, name] for name in names], target, others, learned=own)
    return {name: each.mean for name, each in zip(names, found.candidates, strict=True)}


def _scored(observations: Sequence[Observation], known: Known) -> dict[tuple[str, str], Facts]:
    """With the scores that a belief knows, standardised within each dataset."""
    found = {}
    for dataset in dict.fromkeys(each.dataset for each in observations):
        group = [
            each for each in observations if each.dataset == dataset and each.candidate in known.candidates
        ]
        standard = standardised([scores_of(_values(each)) for each in group])
        for each, scores in zip(group, standard, strict=True):
            found[dataset, each.candidate] = replace(known.candidates[each.candidate], scores=scores)
    return found


def _values(each: Observation) -> dict[tuple[str, str], tuple[float | None, float | None]]:
    """(metric, layer) to value and zero point."""
    found: dict[tuple[str, str], tuple[float | None, float | None]] = {}
    for metric in dict.fromkeys(metric for metric, _ in SCORES):
        for layer in MAPS:
            place = (metric, layer, LOCAL)
            value, gain = each.scores.get(place), each.scores.get(gain_place(place))
            if value is not None:
                found[metric, layer] = value, None if gain is None else value - gain
    return found


def _blind(group: Sequence[Observation], observations: Sequence[Observation]) -> dict[str, float] | None:
    """Candidate to its mean mAP on the other datasets where all of the group were trained: else who was trained on hard
    ones alone would stand low."""
    elsewhere: dict[str, dict[str, float]] = {}
    for each in observations:
        if each.dataset != group[0].dataset:
            elsewhere.setdefault(each.dataset, {})[each.candidate] = each.map
    names = [each.candidate for each in group]
    common = [maps for maps in elsewhere.values() if all(name in maps for name in names)]
    return {name: float(np.mean([maps[name] for maps in common])) for name in names} if common else None
