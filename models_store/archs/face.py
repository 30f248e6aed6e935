"""The face of a detector family: which layers it has and how to compute them, no more than asked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from models_store.archs.aligned import pooler
from models_store.archs.necks import MERGED, Neck
from models_store.bodies.stages import Stage

ROI_OUTPUT = 7
ROI_SAMPLING = 2


@dataclass(frozen=True)
class SourceHead:
    """The head's class probabilities for given boxes: (sum n_i, C) float32, rows sum to 1, background left out.

    ``maps``: map layers that are read; ``parts``: prefixes of the parameters that the scores come through;
    ``probabilities(maps, boxes, image_hw)``: arguments as of ``Detector.source_probabilities``.
    """

    maps: tuple[str, ...]
    parts: tuple[str, ...]
    probabilities: Callable[[Mapping[str, Tensor], Sequence[Tensor], tuple[int, int]], Tensor]


@dataclass(frozen=True)
class Face:
    """``body(x, names)`` gives {stage: map}; ``stages`` are its stages; the rest is optional.

    ``roi_levels``: neck maps that object features are pooled from, by the canonical rule of arXiv
    1612.03144 equation 1. ``box_head``: takes (n, C, r, r) to (n, ``penultimate_channels``) with its ReLUs.
    ``tower``: of a dense head instead, (B, C, h, w) to (B, ``penultimate_channels``, h, w), all before its class logits.
    ``roi_output``: cells a side of these regions. ``identity_at_first``: prefixes of parameters in the head that change
    nothing as long as they are fresh. ``replace_head(num_classes)`` puts a fresh predictor and returns its parameter names.
    ``source``: its class probabilities for given boxes. ``aligned``: regions are read as detectron2 does.
    """

    body: Callable[[Tensor, Collection[str]], dict[str, Tensor]]
    stages: tuple[Stage, ...]
    neck: Neck | None
    roi_levels: tuple[str, ...] = ()
    roi_output: int = ROI_OUTPUT
    identity_at_first: tuple[str, ...] = ()
    box_head: Callable[[Tensor], Tensor] | None = None
    tower: Callable[[Tensor], Tensor] | None = None
    penultimate_channels: int = 0
    head_modules: tuple[str, ...] = ()
    replace_head: Callable[[int], tuple[str, ...]] | None = None
    source: SourceHead | None = None
    aligned: bool = False

    def maps(self, pixels: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """{layer: (B,C,h,w)} for ``backbone.*`` and ``neck.*`` map layers; nothing deeper is run, no finer pyramid map."""
        stages = {name.removeprefix("backbone.") for name in wanted if name.startswith("backbone.")}
        places = {name: self.neck.index(name) for name in wanted if self.neck and name.startswith("neck.")}
        takes = self.neck.needs(set(places.values())) if self.neck and places else ()
        body = self.body(pixels, stages | set(takes))
        found = {f"backbone.{name}": body[name] for name in stages}
        if self.neck and places:
            outputs = self.neck.run(body, set(places.values()))
            found |= {name: outputs[index] for name, index in places.items()}
        return {name: found[name] for name in wanted}

    def before(self, layer: str) -> tuple[str, nn.Module] | None:
        """The map that goes into the last convolution of ``layer``, and that convolution, where nothing else follows."""
        if self.neck is None or layer not in self.neck.names:
            return None
        last = self.neck.last[self.neck.names.index(layer)]
        return None if last is None else (layer + MERGED, last)

    def regions(self, maps: dict[str, Tensor], boxes: Sequence[Tensor], image_hw: tuple[int, int]) -> Tensor:
        """(sum n_i, C, r, r): each box (xyxy, input pixels) from the pyramid level of its size."""
        pool = pooler(self.aligned, self.roi_levels, self.roi_output, ROI_SAMPLING)
        levels = OrderedDict((name, maps[name]) for name in self.roi_levels)
        return pool(levels, list(boxes), [image_hw] * len(boxes))
