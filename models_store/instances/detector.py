"""A DETR while it learns from image labels: regions are the instances, its own queries learn from what is said of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models_store.detector import Detector
from models_store.detr.boxes import relative
from models_store.detr.detector import DetrDetector
from models_store.detr.families import body_path
from models_store.detr.layerwise import Layerwise, layerwise
from models_store.detr.loss import Target, set_loss
from models_store.errors import Unusable
from models_store.instances.heads import Said
from models_store.instances.losses import (
    Refinement,
    moved,
    picture_losses,
    refined_scores,
    summed,
    sure_boxes,
)
from models_store.instances.region_queries import Encoded, RegionQueries, encoding, said_of_regions
from models_store.pretraining import placed_over
from models_store.sizes import Size

BRANCH = "region_queries"
PROBE_PIXELS = 128
COORDINATES = 4
# Their decoders can be asked by queries of another kind; the rest denoise, rank or have none.
ABLE = ("detr", "deformable_detr")


@dataclass(frozen=True)
class QueryLearning:
    """``refinement``: how instances teach each other. ``relative`` and ``apart``: of which boxes own queries learn, see
    ``sure_boxes``. ``weight_own``: of their losses. ``stride``: of the body's map that regions are read at, the nearest that there is."""

    refinement: Refinement = field(default_factory=Refinement)
    relative: float = 0.5
    apart: float = 0.3
    weight_own: float = 1.0
    stride: int = 16


class TaughtByLabels(DetrDetector):
    """Detector protocol, with ``losses`` from the classes of each picture and its regions."""

    counts_pictures = True

    def __init__(self, detector: DetrDetector, how: QueryLearning = QueryLearning()) -> None:
        super().__init__(detector.manifest, detector.module, detector.family)
        self.how = how

    @property
    def queries(self) -> RegionQueries:
        return self.module.get_submodule(BRANCH)

    def losses(
        self,
        images: Sequence[np.ndarray],
        targets: Sequence[Mapping[str, Any]],
        *,
        image_size: Size | None = None,
    ) -> dict[str, Tensor]:
        """The mean over pictures of each picture's own losses: those of ``picture_losses`` over its regions, and ``set_loss``
        of the detector's own queries against the boxes that the regions' refinements are sure of, weighed by how sure.

        A target has ``boxes`` (n, 4) xyxy in pixels, the regions, at least one, and ``present`` (C,) bool.
        """
        pixels, mask = self._padded(images, image_size)
        with self._learning():
            body = self.module.get_submodule(body_path(self.module, self.family))
            if not any(parameter.requires_grad for parameter in body.parameters()):
                body.eval()
            with encoding(self, mask, self.how.stride) as encoded:
                outputs = layerwise(self.module, self.family, pixels, mask).float()
            regions = [self._regions(image, target) for image, target in zip(images, targets, strict=True)]
            told = said_of_regions(self, self.queries, encoded, regions)
            found = []
            for row, (image, target, said) in enumerate(zip(images, targets, told, strict=True)):
                present = target["present"].to(self._device)
                boxes = target["boxes"].to(said.classes).view(-1, 4)
                losses = picture_losses(said, boxes, present, self.how.refinement)
                found.append(losses | self._own(outputs, row, image, said, boxes, present))
        return summed(found)

    def _regions(self, image: np.ndarray, target: Mapping[str, Any]) -> Tensor:
        return relative(target["boxes"].to(self._device).view(-1, 4), (image.shape[0], image.shape[1]))

    def _own(
        self, outputs: Layerwise, row: int, image: np.ndarray, said: Said, boxes: Tensor, present: Tensor
    ) -> dict[str, Tensor]:
        height, width = image.shape[:2]
        scores = refined_scores(said).detach()
        places = moved(said, boxes).detach().view(-1, 4)
        sure = sure_boxes(
            scores, places, present, (height, width), relative=self.how.relative, apart=self.how.apart
        )
        target = Target(relative(sure.boxes, (height, width)), sure.labels)
        own = replace(
            outputs,
            logits=outputs.logits[:, row : row + 1],
            boxes=outputs.boxes[:, row : row + 1],
            proposals=None,
            states=None,
        )
        weight = self.how.weight_own * (sure.scores.mean() if len(sure.scores) else scores.new_zeros(()))
        losses = set_loss(own, [target], no_object=self.family.no_object)
        return {f"own_{name}": weight * value for name, value in losses.items()}

    @torch.no_grad()
    def standardise(
        self, pictures: Iterable[tuple[np.ndarray, np.ndarray]], *, image_size: Size | None = None
    ) -> None:
        """Once, before learning: what regions read gets mean 0 and variance 1 over these pictures with their regions."""
        reads = []
        for image, regions in pictures:
            encoded, boxes = self._encoded(image, regions, image_size)
            reads.append(self.queries.read(*encoded.of(0), boxes))
        self.queries.standardise(torch.cat(reads))

    def _encoded(
        self, image: np.ndarray, regions: np.ndarray, image_size: Size | None
    ) -> tuple[Encoded, Tensor]:
        """With the regions as cxcywh in [0, 1]."""
        pixels, mask = self._padded([image], image_size)
        with encoding(self, mask, self.how.stride) as encoded:
            self.module(pixel_values=pixels, pixel_mask=mask)
        boxes = torch.as_tensor(regions, dtype=torch.float32, device=self._device).view(-1, 4)
        return encoded, relative(boxes, (image.shape[0], image.shape[1]))

    @torch.no_grad()
    def told(
        self, image: np.ndarray, regions: np.ndarray, *, image_size: Size | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of the regions (n, 4) xyxy in pixels of one picture, scores (n, C) in [0, 1] and boxes (n, 4) after their moves."""
        encoded, places = self._encoded(image, regions, image_size)
        [said] = said_of_regions(self, self.queries, encoded, [places])
        boxes = torch.as_tensor(regions, dtype=torch.float32, device=self._device).view(-1, 4)
        found = moved(said, boxes).view(-1, 4)
        return refined_scores(said).double().cpu().numpy(), found.double().cpu().numpy()

    def without_branch(self) -> DetrDetector:
        """The detector alone, as it is kept: what only learning from image labels needs is gone."""
        delattr(self.module, BRANCH)
        return DetrDetector(self.manifest, self.module, self.family)


def taught_by_labels(
    start: Detector,
    classes: Sequence[str],
    *,
    model_type: str | None = None,
    config: Mapping[str, Any] | None = None,
    how: QueryLearning = QueryLearning(),
    grid: int = 2,
    seed: int = 0,
) -> TaughtByLabels:
    """A DETR for ``classes`` that regions can ask: a fresh one of ``model_type`` around the body of ``start``, or, where no
    type is named, ``start`` itself where it is one, else a fresh Deformable DETR.

    Raises Unusable: ``no_body`` where the body cannot be placed elsewhere, ``no_branch`` for a detector with queries of
    another kind.
    """
    if model_type is None and isinstance(start, DetrDetector) and start.family.model_type in ABLE:
        if config:
            raise Unusable(
                "bad_override", "only a fresh detector can have another configuration: leave config out"
            )
        detector = start
    else:
        detector = placed_over(start, model_type or "deformable_detr", config=config, seed=seed)
    options = detector.module.config
    if getattr(options, "two_stage", False) or getattr(options, "with_box_refine", False):
        raise Unusable(
            "no_branch",
            "queries that move from layer to layer or come from the encoder cannot be asked by regions: give a detector "
            "without two_stage and with_box_refine",
        )
    if options.d_model % COORDINATES:
        raise Unusable(
            "bad_config",
            f"d_model {options.d_model} has to be a multiple of {COORDINATES}, one part a coordinate",
        )
    detector.replace_head(len(classes), seed)
    detector.manifest = detector.manifest.but(class_names=tuple(classes))
    device = next(detector.module.parameters()).device
    channels = _channels(detector, how.stride, device)
    branch = RegionQueries(channels, options.d_model, len(classes), grid=grid)
    branch.start(torch.Generator().manual_seed(seed))
    detector.module.add_module(BRANCH, branch.to(device))
    return TaughtByLabels(detector, how)


@torch.no_grad()
def _channels(detector: DetrDetector, stride: int, device: torch.device) -> int:
    mask = torch.ones(1, PROBE_PIXELS, PROBE_PIXELS, dtype=torch.long, device=device)
    with encoding(detector, mask, stride) as encoded:
        detector.module(pixel_values=mask[:, None].repeat(1, 3, 1, 1).float(), pixel_mask=mask)
    return int(encoded.of(0)[0].shape[0])
