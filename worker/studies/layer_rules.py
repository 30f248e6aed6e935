"""Where a score is read, as data: at one stride, at the stride that fits the objects' size, or at all backbone maps at once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models_store.manifest import Layer
from worker.studies.errors import StudyRefused
from worker.studies.observations import Observation, Place
from worker.studies.scoring import BACKBONE, LOCAL

_STRIDE = re.compile(r"stride (\d+)")
_MATCHED = re.compile(r"size / (\d+)")
MEAN = "mean of strides"
# Every rule that a study may choose from unless its file says otherwise.
RULES = (*(f"stride {s}" for s in (4, 8, 16, 32)), *(f"size / {k}" for k in (1, 2, 4, 8)), MEAN)


@dataclass(frozen=True)
class LayerRule:
    """`stride`: the backbone map of the stride nearest to it, for all datasets. `share`: of the stride nearest to the
    median object's side divided by it, so of another on another dataset. Neither: the mean of the scores at all strides; a
    mean, as architectures have different numbers of them."""

    name: str
    stride: int | None = None
    share: int | None = None

    def layers(self, own: Sequence[Layer], object_pixels: float) -> tuple[str, ...]:
        """Names of the layers among a candidate's `own` whose scores are averaged; one but for the mean."""
        maps = _one_of_each_stride(own)
        if self.stride is None and self.share is None:
            return tuple(maps.values())
        wanted = self.stride if self.stride is not None else max(object_pixels / self.share, 1e-9)
        # as a ratio, 32 is as far from 16 as 8 is; of two equally far the coarser
        nearest = min(maps, key=lambda stride: (round(abs(math.log2(stride / wanted)), 9), -stride), default=None)
        return () if nearest is None else (maps[nearest],)


def rule_named(name: str) -> LayerRule:
    """Raises StudyRefused `bad_file`."""
    if match := _STRIDE.fullmatch(name):
        return LayerRule(name, stride=int(match[1]))
    if match := _MATCHED.fullmatch(name):
        return LayerRule(name, share=int(match[1]))
    if name == MEAN:
        return LayerRule(name)
    raise StudyRefused("bad_file", f'{name!r} is no layer rule: "stride 16", "size / 4" or "{MEAN}"')


def with_rules(each: Observation, rules: Iterable[LayerRule], own: Sequence[Layer], object_pixels: float) -> Observation:
    """The observation with the local score of every metric at every rule, at the place (metric, rule, local).

    own: layers of the candidate; object_pixels: side of the dataset's median object as the candidate sees it.
    """
    scores, undefined = dict(each.scores), dict(each.undefined)
    metrics = dict.fromkeys(m for m, layer, level in (*each.scores, *each.undefined) if level == LOCAL and layer.startswith(BACKBONE))
    for rule in rules:
        layers = rule.layers(own, object_pixels)
        for metric in metrics:
            place: Place = (metric, rule.name, LOCAL)
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
        return None, "it has no map of a known stride"
    if missing:
        return None, each.undefined.get(missing[0], "it was not scored there")
    return float(np.mean([each.scores[p] for p in places])), ""


def _one_of_each_stride(own: Sequence[Layer]) -> dict[int, str]:
    """Stride to the deepest trained backbone map that has it."""
    maps = [layer for layer in own if layer.name.startswith(BACKBONE) and layer.kind == "map" and layer.stride and layer.trained]
    return {layer.stride: layer.name for layer in maps}
