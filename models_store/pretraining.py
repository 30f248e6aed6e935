"""A DETR while it is pretrained as DETReg (arXiv 2106.04550) has it: what it starts from, its encoder, its losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models_store.build import COUNTER, architecture_of, build_module
from models_store.detector import Detector, wrapped
from models_store.detr.detector import DetrDetector
from models_store.detr.detreg_loss import detreg_loss
from models_store.detr.embedding import EMBEDDING_HEAD, add_embedding_head
from models_store.detr.families import FAMILIES, architecture_name, body_path
from models_store.detr.layerwise import layerwise
from models_store.detr.loss import Target
from models_store.errors import Unusable
from models_store.manifest import Input, Manifest
from models_store.sizes import Size

OBJECT = ("object",)
# So many crops go through the encoder at once: memory does not follow the batch.
CROPS_AT_ONCE = 120
# Their decoder's queries have states that one head reads; the rest have losses or queries of another kind.
ABLE = ("deformable_detr", "detr", "table-transformer")


@dataclass(frozen=True, eq=False)
class Encoder:
    """A frozen network that says what a crop looks like: the spatial mean of one of its maps."""

    detector: Detector
    layer: str

    @property
    def width(self) -> int:
        return next(each.channels for each in self.detector.layers if each.name == self.layer)

    @torch.no_grad()
    def vectors(self, crops: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 RGB to (n, width) float32."""
        spec = self.detector.manifest.input
        mean, std = (torch.tensor(v, device=crops.device).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
        found = [torch.zeros(0, self.width, device=crops.device)]
        for some in crops.split(CROPS_AT_ONCE):
            pixels = ((some.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            found.append(self.detector.feature_maps(pixels, [self.layer])[self.layer].float().mean((2, 3)))
        return torch.cat(found)


def pretrainable_architectures() -> list[str]:
    """Names of those that can have the embedding head."""
    placed = [f"detrank/{name}" for name in ("detr", "deformable_detr")]
    return sorted(placed + [architecture_name(FAMILIES[name].model_type) for name in ABLE])


def encoder_of(detector: Detector, layer: str) -> Encoder:
    """Raises Unusable ``no_embedding`` where the detector has no such map."""
    maps = [each.name for each in detector.layers if each.kind == "map"]
    if layer not in maps:
        raise Unusable(
            "no_embedding",
            f"{detector.manifest.architecture} gives no map {layer!r} to take a crop's vector from: {', '.join(maps)}",
        )
    return Encoder(detector, layer)


class Pretrained(DetrDetector):
    """A DETR while it is pretrained: any object is class ``object_class``, ``losses`` is DETReg's objective."""

    def __init__(self, detector: DetrDetector, encoder: Encoder) -> None:
        super().__init__(detector.manifest, detector.module, detector.family)
        self.encoder = encoder
        self.object_class = int(detector.manifest.options["object_class"])

    def losses(
        self,
        images: Sequence[np.ndarray],
        targets: Sequence[Mapping[str, Any]],
        *,
        image_size: Size | None = None,
    ) -> dict[str, Tensor]:
        """Those of ``set_loss`` and ``loss_embedding``; their sum is what is minimised.

        A target has ``boxes`` (n, 4) xyxy in pixels, ``labels`` (n,), which are not read, and ``crops`` (n, 3, h, w)
        uint8: what is in each box, augmented.
        """
        pixels, mask = self._padded(images, image_size)
        wanted = [
            Target(t.boxes, torch.full_like(t.labels, self.object_class))
            for t in self._wanted(images, targets)
        ]
        crops = torch.cat([t["crops"].to(pixels.device) for t in targets])
        vectors = self.encoder.vectors(crops).split([len(t.labels) for t in wanted])
        with self._learning():
            body = self.module.get_submodule(body_path(self.module, self.family))
            if not any(parameter.requires_grad for parameter in body.parameters()):
                body.eval()
            outputs = layerwise(self.module, self.family, pixels, mask).float()
            if outputs.states is None:
                raise AssertionError(f"{self.family.title} has no states to embed")
            embedded = getattr(self.module, EMBEDDING_HEAD)(outputs.states)
            return detreg_loss(outputs, embedded, wanted, vectors, no_object=self.family.no_object)


def placed_over(
    encoder: Detector, model_type: str, *, config: Mapping[str, Any] | None = None, seed: int = 0
) -> DetrDetector:
    """A fresh DETR or Deformable DETR for one class around the body of ``encoder``, whose weights it copies.

    Raises Unusable ``no_body`` where the encoder's body cannot be placed elsewhere.
    """
    manifest = encoder.manifest
    if manifest.backbone is None:
        raise Unusable(
            "no_body",
            f"{manifest.architecture} has a body that cannot be placed in another detector: give a backbone's "
            "checkpoint, or pretrain the detector itself (from_checkpoint)",
        )
    source, target = architecture_of(manifest.architecture), architecture_of(f"detrank/{model_type}")
    given = {"config": dict(config or {}), "centred_sine": model_type == "detr"}
    spec = Input(divisor=1, mean=manifest.input.mean, std=manifest.input.std)
    module = build_module(
        target, num_classes=1, input=spec, backbone=manifest.backbone, options=given, seed=seed
    )
    own, theirs = module.state_dict(), encoder.module.state_dict()
    body = [key for key in own if key.startswith(target.body_prefix)]
    with torch.no_grad():
        for key in body:
            if key.endswith(COUNTER):  # of norms that are frozen there; nobody reads it
                continue
            own[key].copy_(theirs[source.body_prefix + key.removeprefix(target.body_prefix)])
    initialised = tuple(key for key in own if key not in set(body))
    if target.layers is None:
        raise AssertionError(f"{target.name} finds its layers by running")
    fresh = Manifest(
        architecture=target.name,
        format="detrank",
        kind="detector",
        input=spec,
        layers=target.layers(module, spec, initialised),
        parameters=sum(p.numel() for p in module.parameters()),
        source=manifest.source,
        weights_sha256="",
        backbone=manifest.backbone,
        num_classes=1,
        class_names=OBJECT,
        has_background=target.has_background,
        initialised_keys=initialised,
        licence=manifest.licence,
        options=given,
    )
    made = wrapped(fresh, module, "cpu")
    if not isinstance(made, DetrDetector):
        raise AssertionError(f"{target.name} is no DETR")
    return made


def made_pretrainable(detector: Detector, width: int, seed: int) -> DetrDetector:
    """In place: one class for "there is something" and an embedding head of ``width`` outputs, where they are not there.

    What an earlier pretraining left is kept: its class among however many, and its embedding head if it has the same
    width. Raises Unusable ``no_branch`` for detectors that cannot have the head.
    """
    family = getattr(detector, "family", None)
    if not isinstance(detector, DetrDetector) or family is None or family.model_type not in ABLE:
        raise Unusable(
            "no_branch",
            f"{detector.manifest.architecture} has no queries that an embedding head could read: pretrain one of "
            + ", ".join(pretrainable_architectures()),
        )
    if getattr(detector.module.config, "two_stage", False):
        raise Unusable(
            "no_branch", "two-stage Deformable DETR was never pretrained this way: give one without"
        )
    options = dict(detector.manifest.options)
    if options.get("object_class") is None:
        detector.replace_head(1, seed)
        options = dict(detector.manifest.options) | {"object_class": 0}
        detector.manifest = detector.manifest.but(class_names=OBJECT)
    if options.get("embedding") != width:
        _fresh_embedding_head(detector.module, width, seed)
        options["embedding"] = width
    detector.manifest = detector.manifest.but(options=options)
    detector.module.requires_grad_(False)
    return detector


def _fresh_embedding_head(module: nn.Module, width: int, seed: int) -> None:
    device = next(module.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        add_embedding_head(module, width)
    module.get_submodule(EMBEDDING_HEAD).to(device)
