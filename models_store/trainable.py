"""Which parameters of a detector are stem, body, neck and head: what a training freezes or gives another rate."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from models_store.archs.maskrcnn_c4 import Res5Head
from models_store.detector import Detector
from models_store.detr.detector import DetrDetector
from models_store.detr.families import body_path
from models_store.detr.loss import NO_OBJECT_WEIGHT

Part = Literal["stem", "body", "neck", "head"]

POLICIES = ("none", "stem", "backbone", "all_but_head")
FROZEN: dict[str, frozenset[str]] = {
    "none": frozenset(),
    "stem": frozenset({"stem"}),
    "backbone": frozenset({"stem", "body"}),
    "all_but_head": frozenset({"stem", "body", "neck"}),
}
STEM_LAYER = "backbone.c2"
STEM_PIXELS = 128
# A plain transformer has no map at stride 4: its stem is what makes tokens of pixels.
TOKENISERS = re.compile(
    r"(^|\.)(patch_embed|patch_embeddings|embeddings|pos_embed|cls_token|reg_token|conv1)(\.|$)"
)
NECKS = (
    "backbone.fpn.",
    "backbone.extra.",
    "backbone.scale_weight",
    # YOLOX's
    "backbone.lateral_conv",
    "backbone.reduce_conv",
    "backbone.bu_conv",
    "backbone.C3_",
)
DETR_NECKS = re.compile(
    r"^model\.(input_proj|encoder_input_proj|decoder_input_proj|encoder|level_embed|backbone\.projector"
    r"|conv_encoder\.(encoder_input_proj|fusion_proj|spatial_tuning_adapter))"
)
# D-FINE's fixed scale and limit of its box distributions.
FIXED = re.compile(r"^model\.decoder\.(up|reg_scale)$")
NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


def parts(detector: Detector) -> dict[str, Part]:
    """{parameter name: its part} for every parameter of ``detector.module``.

    ``stem``: what the map at stride 4 is computed by (a ResNet's first convolution and layer1), or a plain
    transformer's token embedding; ``body``: the rest of the backbone; ``neck``: pyramid, extra maps, projections and
    encoder; ``head``: proposals, box, class and mask branches, a DETR's decoder. Mask R-CNN C4 has the body's last
    stage in its head.
    """
    names = [name for name, _ in detector.module.named_parameters()]
    if isinstance(detector, DetrDetector):
        body = body_path(detector.module, detector.family) + "."
        found: dict[str, Part] = {n: _detr_part(n, body) for n in names}
    else:
        found = {n: _convolutional_part(n) for n in names}
        box_head = getattr(getattr(detector.module, "roi_heads", None), "box_head", None)
        if isinstance(box_head, Res5Head):
            inside = {id(p) for p in box_head.stage.module.parameters()}
            found |= {n: "head" for n, p in detector.module.named_parameters() if id(p) in inside}
    stem = _stem(detector, {n for n, part in found.items() if part == "body"})
    return found | dict.fromkeys(stem, "stem")


def set_trainable(detector: Detector, policy: str, found: dict[str, Part] | None = None) -> None:
    """Let gradients reach all parameters but those that ``policy`` freezes. Raises KeyError for an unknown policy."""
    frozen = FROZEN[policy]
    found = parts(detector) if found is None else found
    for name, parameter in detector.module.named_parameters():
        parameter.requires_grad_(found[name] not in frozen and not FIXED.match(name))


def norm_parameters(module: nn.Module) -> set[str]:
    """Names of scales and shifts of normalisation layers."""
    return {
        f"{name}.{leaf}" if name else leaf
        for name, child in module.named_modules()
        if isinstance(child, NORMS)
        for leaf, _ in child.named_parameters(recurse=False)
    }


def has_mask_branch(module: nn.Module) -> bool:
    return getattr(getattr(module, "roi_heads", None), "mask_roi_pool", None) is not None


@dataclass(frozen=True)
class Tally:
    """What losses are normalised by: images, their objects, and the queries matched to them."""

    images: float
    objects: float
    matched: float


def tally(detector: Detector, objects: Sequence[int]) -> Tally:
    """Of images with so many objects each; tallies of the parts of a batch add up."""
    queries = _queries(detector)
    return Tally(len(objects), sum(objects), sum(min(queries, count) for count in objects))


def normaliser(detector: Detector, loss: str, counted: Tally) -> float:
    """What the loss of this name was divided by, up to a constant.

    A batch's loss is the sum over its parts of each part's loss times its share of the batch's normaliser: exact for
    DETR's losses and RetinaNet's; for two-stage detectors where every image fills its quota of proposals. SSD and
    FCOS divide by the matched anchors of the batch, for which images stand here, as they do in data-parallel training.
    """
    if not isinstance(detector, DetrDetector) or detector.counts_pictures:
        return counted.images
    if detector.family.no_object and detector.family.set_loss and loss.startswith("loss_ce"):
        empty = counted.images * _queries(detector) - counted.matched
        return counted.matched + NO_OBJECT_WEIGHT * empty
    return max(1.0, counted.objects)


def _queries(detector: Detector) -> int:
    config = getattr(detector.module, "config", None)
    return int(getattr(config, "num_queries", None) or getattr(config, "num_detection_tokens", None) or 0)


def needs_equal_sizes(detector: Detector) -> bool:
    """Whether the images of one batch must share a target size."""
    return isinstance(detector, DetrDetector) and not detector.family.masks


def _convolutional_part(name: str) -> Part:
    if name.startswith(NECKS):
        return "neck"
    return "body" if name.startswith("backbone.") else "head"


def _detr_part(name: str, body: str) -> Part:
    if name.startswith(body) and not name.endswith("detection_tokens"):
        return "body"
    return "neck" if DETR_NECKS.match(name) else "head"


def _stem(detector: Detector, body: Collection[str]) -> set[str]:
    if not any(layer.name == STEM_LAYER for layer in detector.layers):
        return {name for name in body if TOKENISERS.search(name)}
    ran: set[str] = set()
    handles = [
        child.register_forward_hook(lambda _, __, ___, name=name: ran.add(name))
        for name, child in detector.module.named_modules()
        if next(child.parameters(recurse=False), None) is not None
    ]
    device = next(detector.module.parameters()).device
    try:
        # Nothing deeper than the asked map is run.
        detector.feature_maps(torch.zeros(1, 3, STEM_PIXELS, STEM_PIXELS, device=device), [STEM_LAYER])
    finally:
        for handle in handles:
            handle.remove()
    return {name for name in body if name.rpartition(".")[0] in ran}
