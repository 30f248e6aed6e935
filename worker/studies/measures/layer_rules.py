"""Where a score is read, as data: at one backbone map, at the map that fits the objects' size, or at all maps at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models_store.manifest import Layer
from worker.ranking.rule import SIZE_MATCHED, STRIDES, nearest_map
from worker.studies.errors import StudyRefused
from worker.studies.measures.observations import Observation, Place
from worker.studies.measures.scoring import BACKBONE, LOCAL

_MATCHED = re.compile(rf"{SIZE_MATCHED} / (\d+)")
MEAN = "mean of maps"
# Every rule that a study may choose from unless its file says otherwise.
RULES = (*STRIDES, *(f"{SIZE_MATCHED} / {k}" for k in (1, 2, 4, 8)), MEAN)


@dataclass(frozen=True)
class LayerRule:
    """`layer`: that map, on all datasets. `cells`: the map on which the side of the median object spans so many cells, or
    comes nearest, as the service matches sizes among its fewer maps. Neither: the mean of the scores at all maps. The last two look at maps
    that all candidates have, so all are read at the same ones."""

    name: str
    layer: str | None = None
    cells: int | None = None

    def layers(self, shared: Sequence[str], object_pixels: float) -> tuple[str, ...]:
        """Names of the maps whose scores are averaged; one but for the mean. shared: maps that all candidates have."""
        if self.layer is not None:
            return (self.layer,)
        if self.cells is None or not shared:
            return tuple(shared)
        return (nearest_map(shared, max(object_pixels, 1e-9) / self.cells),)


def rule_named(name: str) -> LayerRule:
    """Raises StudyRefused `bad_file`."""
    if match := _MATCHED.fullmatch(name):
        return LayerRule(name, cells=int(match[1]))
    if name == MEAN:
        return LayerRule(name)
    if name.startswith(BACKBONE):
        return LayerRule(name, layer=name)
    raise StudyRefused(
        "bad_file",
        f'{name!r} is no layer rule: a backbone map ("backbone.c4"), "{SIZE_MATCHED} / 8" or "{MEAN}"',
    )


def shared_maps(candidates: Iterable[Sequence[Layer]]) -> tuple[str, ...]:
    """The maps of known stride that all candidates have and that are trained in all, from fine to coarse."""
    having = [{layer.name for layer in own if layer.trained} for own in candidates]
    return tuple(name for name in STRIDES if having and all(name in own for own in having))


def with_rules(each: Observation, layers_of: Mapping[str, Sequence[str]]) -> Observation:
    """The observation with the local score of every metric at every rule, at the place (metric, rule, local).

    layers_of: name of each rule to the maps it reads on the observation's dataset; a rule that is a map itself changes
    nothing.
    """
    scores, undefined = dict(each.scores), dict(each.undefined)
    metrics = dict.fromkeys(
        m
        for m, layer, level in (*each.scores, *each.undefined)
        if level == LOCAL and layer.startswith(BACKBONE)
    )
    for rule, layers in layers_of.items():
        for metric in metrics:
            place: Place = (metric, rule, LOCAL)
            value, reason = _value(each, metric, layers)
            if value is None:
                undefined[place] = reason
            else:
                scores[place] = value
    return replace(each, scores=scores, undefined=undefined)


def _value(each: Observation, metric: str, layers: Sequence[str]) -> tuple[float | None, str]:
    places = [(metric, layer, LOCAL) for layer in layers]
    missing = [p for p in places if p not in each.scores]
    if not places:
        return None, "the candidates have no map in common"
    if missing:
        return None, each.undefined.get(missing[0], f"it was not scored at {missing[0][1]}")
    return float(np.mean([each.scores[p] for p in places])), ""
