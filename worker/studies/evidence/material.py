"""What a real study found, made ready for evidence: every score at every layer rule, gains and short trainings among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from worker.studies.measures.default_rule import DEFAULT_RULE, with_default_rule
from worker.studies.measures.gains import is_gain, raw_of
from worker.studies.measures.layer_rules import shared_maps, with_rules
from worker.studies.measures.observations import Observation, Place
from worker.studies.measures.question import Question
from worker.studies.measures.scoring import LOCAL
from worker.studies.measures.signals import Early, early_of, with_probe
from worker.studies.measures.sizes import SIZES
from worker.studies.measures.zero_point import architecture_digest
from worker.studies.runs.real import RealStudy
from worker.studies.work_folder import Key


@dataclass(frozen=True)
class Material:
    """observations: with all that can be scored; those of one size have it for their level. object_pixels: dataset to the
    side of its median object in pixels of the input, the median over the candidates. layers: dataset to rule to the maps it
    reads there."""

    real: RealStudy
    question: Question
    observations: tuple[Observation, ...]
    object_pixels: Mapping[str, float]
    layers: Mapping[str, Mapping[str, tuple[str, ...]]]

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(o.dataset for o in self.observations))

    @property
    def proof(self) -> tuple[str, ...]:
        """Datasets that the choice does not look at."""
        return tuple(d for d in self.datasets if d not in self.question.choose_on)

    @property
    def chosen_on(self) -> tuple[str, ...]:
        return tuple(d for d in self.question.choose_on if d in self.datasets)

    @property
    def architectures(self) -> int:
        return len({(m.architecture, m.backbone) for m in self.real.manifests.values()})

    def early(self, each: Observation, seed: int) -> float | None:
        """The early signal of a seed's fine-tuning."""
        found = self._early(each, seed)
        return None if found is None else found.value

    def _early(self, each: Observation, seed: int) -> Early | None:
        return early_of(self.real.tunings[each.dataset, each.candidate][seed])

    def seconds(self, place: Place) -> float:
        """Mean seconds of one candidate on one dataset to have a score: reading the features, all layers in one pass, and
        scoring. Steps that several metrics share count for the first of them. A gain adds its share of the zero points."""
        own = [
            _cost(self.real.scores[o.dataset, o.candidate], place, self.layers[o.dataset].get(place[1], ()))
            for o in self.observations
        ]
        return float(np.mean(own)) + (self._zero_seconds if is_gain(place[0]) else 0.0)

    @cached_property
    def _zero_seconds(self) -> float:
        """Of one candidate on one dataset: architectures that several candidates share are paid for once."""
        paid: dict[tuple[str, str], float] = {}
        for (dataset, candidate), zero in self.real.zeros.items():
            if "seconds" in zero:
                paid[dataset, architecture_digest(self.real.manifests[candidate])] = sum(
                    zero["seconds"].values()
                )
        return sum(paid.values()) / max(len(self.observations), 1)

    @property
    def probe_seconds(self) -> float | None:
        return _mean(p.get("seconds") for p in self.real.probes.values())

    @property
    def early_seconds(self) -> float | None:
        return _mean(e.seconds for o in self.observations for s in o.map_by_seed if (e := self._early(o, s)))

    @property
    def full_seconds(self) -> float | None:
        return _mean(r.get("seconds") for by_seed in self.real.tunings.values() for r in by_seed.values())


def material_of(real: RealStudy, question: Question) -> Material:
    """Raises StudyRefused."""
    plain = real.observations()
    by_rule = {(o.dataset, o.candidate): o for o in with_default_rule([_without_sizes(o) for o in plain])}
    pixels, layers = {}, {}
    for dataset in dict.fromkeys(o.dataset for o in plain):
        names = [o.candidate for o in plain if o.dataset == dataset]
        pixels[dataset] = float(
            np.median([real.scores[dataset, name]["object_pixels"]["median"] for name in names])
        )
        shared = shared_maps(real.manifests[name].layers for name in names)
        layers[dataset] = {rule.name: rule.layers(shared, pixels[dataset]) for rule in question.rules}
    found = []
    for each in plain:
        key: Key = (each.dataset, each.candidate)
        default = by_rule[key]
        each = with_rules(each, layers[each.dataset])
        if real.probes:
            each = with_probe(each, real.probes[key])
        if DEFAULT_RULE in default.scores:
            each = replace(each, scores={**each.scores, DEFAULT_RULE: default.scores[DEFAULT_RULE]})
        else:
            each = replace(each, undefined={**each.undefined, DEFAULT_RULE: default.undefined[DEFAULT_RULE]})
        found.append(each)
    return Material(real, question, tuple(found), pixels, layers)


def _without_sizes(each: Observation) -> Observation:
    """The service scores all objects together."""
    scores = {p: v for p, v in each.scores.items() if p[2] not in SIZES}
    return replace(
        each, scores=scores, undefined={p: v for p, v in each.undefined.items() if p[2] not in SIZES}
    )


def _cost(scores: Mapping[str, Any], place: Place, layers: tuple[str, ...]) -> float:
    spent = sum(
        row["seconds"]
        for row in scores["rows"]
        if row["metric"] == raw_of(place[0]) and row["layer"] in layers and row["level"] == LOCAL
    )
    return scores["seconds"]["features"] + spent


def _mean(values: Any) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
