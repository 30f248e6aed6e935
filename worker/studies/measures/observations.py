"""What a study stands on: for each candidate on each dataset its scores, its published figures and its mAP."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from worker.studies.errors import StudyRefused

Place = tuple[str, str, str]  # metric, layer, level
_LISTED = 5


@dataclass(frozen=True)
class Observation:
    """One candidate on one dataset.

    scores: (metric, layer, level) to a finite value. undefined: the same to the reason why there is none; a place in
    neither was not scored for this candidate. static: baseline to its figure, None where it is not known.
    map_by_seed: mAP@[.5:.95] in 0..1 by the seed of the fine-tuning; the truth is their mean. object_pixels: the median side
    of an object in pixels of the candidate's input, None where it is not known.
    """

    dataset: str
    candidate: str
    scores: Mapping[Place, float]
    static: Mapping[str, float | None]
    map_by_seed: Mapping[int, float]
    undefined: Mapping[Place, str] = field(default_factory=dict)
    object_pixels: float | None = None

    @property
    def map(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(list(self.map_by_seed.values())))


def refuse_what_cannot_be_used(observations: Sequence[Observation]) -> None:
    """Raises StudyRefused for an empty study, a candidate twice, a missing mAP, and whatever is not finite."""
    if not observations:
        raise StudyRefused(
            "no_observations", "there is nothing to correlate: rank and verify candidates first"
        )
    seen: set[tuple[str, str]] = set()
    for each in observations:
        where = (each.dataset, each.candidate)
        if where in seen:
            raise StudyRefused("duplicate", f"{each.candidate} stands twice for {each.dataset}: give it once")
        seen.add(where)
    without = [f"{o.candidate} on {o.dataset}" for o in observations if not o.map_by_seed]
    if without:
        raise StudyRefused("no_map", f"no mAP is known of {_some(without)}: verify them, or leave them out")
    bad = [name for each in observations for name in _not_finite(each)]
    if bad:
        raise StudyRefused(
            "not_finite",
            f"not finite: {_some(bad)}. Nothing is dropped silently: score again, or give the reason as undefined",
        )


def swapped(observations: Iterable[Observation]) -> list[Observation]:
    """Target selection from source selection: candidates become datasets and the other way round."""
    return [replace(o, dataset=o.candidate, candidate=o.dataset) for o in observations]


def _not_finite(each: Observation) -> list[str]:
    about = f"{each.candidate} on {each.dataset}"
    found = [
        f"{' '.join(place)} = {value} of {about}"
        for place, value in each.scores.items()
        if not _finite(value)
    ]
    found += [
        f"{name} = {value} of {about}"
        for name, value in each.static.items()
        if value is not None and not _finite(value)
    ]
    return found + [
        f"mAP = {value} with seed {seed} of {about}"
        for seed, value in each.map_by_seed.items()
        if not _finite(value)
    ]


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _some(names: Sequence[str]) -> str:
    head = ", ".join(names[:_LISTED])
    return head if len(names) <= _LISTED else f"{head} and {len(names) - _LISTED} more"
