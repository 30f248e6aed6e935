"""Regions of a picture as queries of a DETR: what each looks like, where it is, and what is said of it.

The decoder is asked twice about the same encoded picture: by its own queries, as ever, and by the regions. A region's query is
what the body sees inside of it (ROI align) and the sine embedding of its box, so that an instance has a place from the
start; queries of no place would have to find boxes and classes at once, which image labels do not teach.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_convert, roi_align

from models_store.detr.detector import DetrDetector
from models_store.detr.families import body_path
from models_store.detr.maps import maps_of
from models_store.detr.placed import PlacedBody
from models_store.instances.heads import REFINEMENTS, InstanceHeads, Said

TEMPERATURE = 10_000
CONTEXT = 1.8
HIDDEN = 256
DROPOUT = 0.3
LEAST_SPREAD = 1e-6
SAMPLES = 2  # of ROI align, on each side of a cell


class RegionQueries(nn.Module):
    """Queries of regions, and the heads over their decoder states.

    ``grid`` x ``grid`` cells of a region are told apart, and what is in the box ``CONTEXT`` times as wide and high around it:
    both tell a part from the whole. ``channels``: of the body's map that they are read at.
    """

    def __init__(
        self, channels: int, width: int, classes: int, *, grid: int = 2, refinements: int = REFINEMENTS
    ) -> None:
        super().__init__()
        self.grid = grid
        numbers = channels * (grid * grid + 1)
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("std", torch.ones(numbers))
        self.content = nn.Sequential(
            nn.Linear(numbers, HIDDEN),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, width),
            nn.LayerNorm(width),
        )
        self.place = nn.Linear(2 * width, width)
        self.heads = InstanceHeads(width, classes, refinements=refinements)

    def forward(self, features: Tensor, extent: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(n, d) what n queries begin with, (n, d) their position embeddings.

        ``features`` (c, h, w) of one picture, ``extent`` (2,): the parts of its width and height that are picture,
        ``boxes`` (n, 4) cxcywh in [0, 1] of the picture.
        """
        read = (self.read(features, extent, boxes) - self.mean) / self.std
        return self.content(read), self.place(sine_of_boxes(boxes, self.place.out_features))

    def read(self, features: Tensor, extent: Tensor, boxes: Tensor) -> Tensor:
        """(n, c * (grid * grid + 1)): the cells of each region, and what is around it."""
        height, width = features.shape[-2:]
        cells = boxes.new_tensor([width, height] * 2) * extent.repeat(2)
        corners = box_convert(boxes, "cxcywh", "xyxy") * cells
        inside = roi_align(features[None], [corners], self.grid, sampling_ratio=SAMPLES, aligned=True)
        around = box_convert(boxes * boxes.new_tensor([1, 1, CONTEXT, CONTEXT]), "cxcywh", "xyxy").clamp(0, 1)
        ring = roi_align(features[None], [around * cells], 1, sampling_ratio=2 * SAMPLES, aligned=True)
        return torch.cat([inside.flatten(1), ring.flatten(1)], dim=1)

    @torch.no_grad()
    def standardise(self, reads: Tensor) -> None:
        """From what regions of many pictures read (m, c * (grid * grid + 1)): what all have in common tells none apart."""
        self.mean.copy_(reads.mean(dim=0))
        spread = reads.std(dim=0)
        self.std.copy_(torch.where(spread > LEAST_SPREAD, spread, 1.0))

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """Glorot's scale for what makes a query, the published small one for the heads."""
        for layer in (self.content[0], self.content[3], self.place):
            bound = math.sqrt(6 / sum(layer.weight.shape))
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.zero_()
        self.heads.start(generator)


def sine_of_boxes(boxes: Tensor, width: int) -> Tensor:
    """(n, 2 * width) of (n, 4) cxcywh in [0, 1]: each coordinate in sines and cosines, as in arXiv 2201.12329, section 4.2."""
    index = torch.arange(width // 4, device=boxes.device)
    wave = TEMPERATURE ** (index / (width // 4))
    phase = boxes[..., None] * (2 * math.pi) / wave
    return torch.cat([phase.sin(), phase.cos()], dim=-1).flatten(1)


@dataclass
class Encoded:
    """What a pass through the detector left for others to ask about: ``features`` (B, c, h, w), the body's map that regions are
    read at; ``extents`` (B, 2): parts of width and height that are picture; ``asked``: how the decoder was called."""

    extents: Tensor
    features: Tensor | None = None
    asked: dict[str, Any] = field(default_factory=dict)

    def of(self, row: int) -> tuple[Tensor, Tensor]:
        if self.features is None:
            raise AssertionError("nothing has gone through the detector")
        return self.features[row].float(), self.extents[row]


@contextlib.contextmanager
def encoding(detector: DetrDetector, mask: Tensor, stride: int) -> Iterator[Encoded]:
    """Within, the next pass through ``detector.module`` fills what is given.

    ``mask`` (B, H, W): 1 where there is picture. ``stride``: of the map that is wanted, the nearest that the body gives.
    """
    body = detector.module.get_submodule(body_path(detector.module, detector.family))
    whole = mask.new_tensor([mask.shape[-1], mask.shape[-2]], dtype=torch.float32)
    found = Encoded(torch.stack([mask[:, 0].sum(dim=1), mask[:, :, 0].sum(dim=1)], dim=1) / whole)

    def before_decoder(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        found.asked = found.asked or kwargs

    def after_body(_: nn.Module, __: Any, output: Any) -> None:
        maps = [*maps_of(output), *(body.remembered.values() if isinstance(body, PlacedBody) else ())]
        found.features = min(maps, key=lambda each: abs(math.log2(mask.shape[-1] / each.shape[-1] / stride)))

    if isinstance(body, PlacedBody):
        body.also = (min(body.stages, key=lambda stage: abs(math.log2(stage.stride / stride))).name,)
    handles = [
        body.register_forward_hook(after_body),
        detector.module.model.decoder.register_forward_pre_hook(before_decoder, with_kwargs=True),
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
        if isinstance(body, PlacedBody):
            body.also, body.remembered = (), {}


def said_of_regions(
    detector: DetrDetector, queries: RegionQueries, encoded: Encoded, boxes: Sequence[Tensor]
) -> list[Said]:
    """What is said of the regions of each picture: ``boxes`` (n_i, 4) cxcywh in [0, 1] of it.

    No other picture has a part in it, and no other region: where regions see each other, every one of them can tell what is
    somewhere in the picture, and which one it is of is never learned.
    """
    counts = [len(each) for each in boxes]
    asked = [queries(*encoded.of(row), each) for row, each in enumerate(boxes)]
    padded = {
        "inputs_embeds": pad_sequence([content for content, _ in asked], batch_first=True),
        "object_queries_position_embeddings": pad_sequence([place for _, place in asked], batch_first=True),
    }
    if "reference_points" in encoded.asked:
        padded["reference_points"] = pad_sequence(list(boxes), batch_first=True, padding_value=0.5)
    decoder = detector.module.model.decoder
    with _alone(decoder):
        states = decoder(**encoded.asked | padded).last_hidden_state.float()
    said = queries.heads(torch.cat([row[:count] for row, count in zip(states, counts, strict=True)]))
    ends = list(itertools.accumulate(counts, initial=0))
    return [said.of(slice(*pair)) for pair in itertools.pairwise(ends)]


@contextlib.contextmanager
def _alone(decoder: nn.Module) -> Iterator[None]:
    """Within, each query attends to itself only, of all queries."""

    def after(layer: nn.Module, _: Any, kwargs: dict[str, Any], __: Any) -> Any:
        return layer.o_proj(layer.v_proj(kwargs["hidden_states"])), None

    handles = [layer.self_attn.register_forward_hook(after, with_kwargs=True) for layer in decoder.layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
