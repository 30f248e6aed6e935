"""Where objects may be, for a teacher that knows only which classes a picture holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from models_store.detector import Detector
from worker.pretraining import edge_boxes, selective_search
from worker.pseudo_boxes import cuts
from worker.pseudo_boxes.attention import transformer_of
from worker.pseudo_boxes.cuts import CutSettings
from worker.pseudo_boxes.pseudo_boxes import Unteachable

SELECTIVE_SEARCH, OBJECTNESS, CUTS = "selective_search", "objectness", "cuts"
METHODS = (SELECTIVE_SEARCH, OBJECTNESS, CUTS)
VERSIONS = {SELECTIVE_SEARCH: selective_search.VERSION, OBJECTNESS: edge_boxes.VERSION, CUTS: cuts.VERSION}


@dataclass(frozen=True)
class RegionSettings:
    """`methods`: one or several, whose boxes are joined; at most `most` of a picture: of selective search the largest, else
    the best. A box of more than `largest` of the picture's area, or with a side below `least_side` of its, is no region.
    """

    methods: tuple[str, ...] = (SELECTIVE_SEARCH,)
    most: int = 300
    largest: float = 0.95
    least_side: float = 2 / 128
    cuts: CutSettings = field(default_factory=CutSettings)


def searching(
    settings: RegionSettings = RegionSettings(), *, attention_of: Detector | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """What finds regions: a picture uint8 (h, w, 3) RGB to (n, 4) float32 xyxy in [0, 1], n may be 0; the same each time.

    `attention_of`: whose attention is cut, with the method `cuts`. Raises Unteachable `unknown_proposals`, `no_attention`.
    """
    searches = [_search(name, settings, attention_of) for name in settings.methods]
    if not searches:
        raise Unteachable("unknown_proposals", f"name at least one of {', '.join(METHODS)}")

    def search(pixels: np.ndarray) -> np.ndarray:
        return _joined((one(pixels) for one in searches), settings)

    return search


def _search(
    name: str, settings: RegionSettings, attention_of: Detector | None
) -> Callable[[np.ndarray], np.ndarray]:
    if name == SELECTIVE_SEARCH:
        return selective_search.selective_search
    if name == OBJECTNESS:
        return edge_boxes.edge_boxes
    if name == CUTS:
        if attention_of is None:
            raise Unteachable(
                "no_attention",
                "cuts need a backbone with attention: give the checkpoint of a vision transformer",
            )
        transformer_of(attention_of)
        return partial(cuts.cut_boxes, attention_of, settings=settings.cuts)
    raise Unteachable("unknown_proposals", f"there are no proposals {name!r}: {', '.join(METHODS)}")


def _joined(found: Iterable[np.ndarray], settings: RegionSettings) -> np.ndarray:
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *found]).astype(np.float32)
    _, first = np.unique(boxes, axis=0, return_index=True)
    boxes = boxes[np.sort(first)]
    sides = boxes[:, 2:] - boxes[:, :2]
    fits = (sides >= settings.least_side).all(axis=1) & (sides.prod(axis=1) <= settings.largest)
    return boxes[fits][: settings.most]
