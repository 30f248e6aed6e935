"""Choosing one score on some datasets, to be looked at on others.

Everything here is handed the observations of all datasets and looks at those it chooses on only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.studies.measures.agreement import weighted_tau
from worker.studies.measures.correlation import FEWEST, value_at
from worker.studies.measures.observations import Observation, Place


@dataclass(frozen=True)
class Choice:
    """place: the score with the highest mean weighted tau on the datasets `on`, None where none fits. tau: that mean.

    considered: of how many; fitting: those of them that have a value for every candidate on each of the datasets and met the
    condition, with their means, the best first.
    """

    place: Place | None
    tau: float | None
    on: tuple[str, ...]
    considered: int
    fitting: Mapping[Place, float]


def choose(
    observations: Sequence[Observation],
    places: Sequence[Place],
    on: Sequence[str],
    *,
    last: Collection[str] = (),
) -> Choice:
    """The best of `places` on the datasets `on`; of equals the first.

    A score must have a value for every candidate there, or it could not be a default. last: candidates that it must put
    below all others on each of these datasets.
    """
    groups = [[o for o in observations if o.dataset == dataset] for dataset in on]
    taus: dict[Place, float] = {}
    for place in places:
        each = [tau for group in groups if (tau := tau_on(group, place)) is not None]
        if (
            each
            and len(each) == len(groups)
            and (not last or all(stand_last(group, place, last) for group in groups))
        ):
            taus[place] = float(np.mean(each))
    fitting = dict(sorted(taus.items(), key=lambda each: -round(each[1], 12)))
    best = next(iter(fitting), None)
    return Choice(best, None if best is None else fitting[best], tuple(on), len(places), fitting)


def tau_on(group: Sequence[Observation], place: Place) -> float | None:
    """Weighted tau with mAP over the candidates of one dataset; None unless every one has a value, or where it has none."""
    values = [value_at(o, place)[0] for o in group]
    if len(values) < FEWEST or None in values:
        return None
    tau = weighted_tau(np.array([values], dtype=np.float64), np.array([[o.map for o in group]]))[0]
    return float(tau) if np.isfinite(tau) else None


def ranks_of(group: Sequence[Observation], place: Place, names: Collection[str]) -> tuple[int, ...]:
    """Places from 1, best first, of those candidates of one dataset that have a value. Equal scores share the better place:
    an untrained candidate that a score cannot tell from a trained one is not below it."""
    found = {o.candidate: v for o in group if (v := value_at(o, place)[0]) is not None}
    return tuple(sorted(1 + sum(v > found[name] for v in found.values()) for name in names if name in found))


def stand_last(group: Sequence[Observation], place: Place, names: Collection[str]) -> bool:
    """Whether the score is below that of every other candidate for each of `names` that is there; false for no value."""
    values = {o.candidate: v for o in group if (v := value_at(o, place)[0]) is not None}
    if len(values) < len({o.candidate for o in group}):
        return False
    below = [v for c, v in values.items() if c in names]
    above = [v for c, v in values.items() if c not in names]
    return not below or not above or max(below) < min(above)


def leave_one_out(
    observations: Sequence[Observation], places: Sequence[Place], *, last: Collection[str] = ()
) -> dict[str, Choice]:
    """Dataset to what is chosen on all others."""
    datasets = tuple(dict.fromkeys(o.dataset for o in observations))
    return {
        dataset: choose(observations, places, [d for d in datasets if d != dataset], last=last)
        for dataset in datasets
    }
