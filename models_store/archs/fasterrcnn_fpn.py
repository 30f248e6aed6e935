"""``detrank/fasterrcnn_fpn``: any backbone placed in torchvision's Faster R-CNN with a feature pyramid."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from models_store.archs.base import Architecture, BuildSpec, register
from models_store.archs.face import Face, probe_neck
from models_store.archs.norms import norm_of
from models_store.archs.pyramid import PyramidBackbone
from models_store.archs.source import with_box_head
from models_store.archs.stages import PROBE_PIXELS
from models_store.archs.torchvision_rcnn import replace_predictors
from models_store.errors import Unusable
from models_store.manifest import Input

ANCHOR_PER_STRIDE = 8
ASPECT_RATIOS = (0.5, 1.0, 2.0)
# There is no norm outside the body that groups could replace.
NORMS = ("frozen", "bn", "syncbn")


def needed_backbone(spec: BuildSpec) -> str:
    if spec.backbone is None:
        raise Unusable("missing_backbone", "this architecture needs a backbone, such as torchvision/resnet50")
    return spec.backbone


def pyramid_arguments(spec: BuildSpec, backbone: PyramidBackbone) -> dict[str, Any]:
    """What every two-stage detector over the pyramid is given: our input, one anchor size a level, ROI align."""
    levels = [str(i) for i in range(backbone.levels)]
    sizes = tuple((ANCHOR_PER_STRIDE * backbone.first_stride * 2**i,) for i in range(backbone.levels + 1))
    return {
        "num_classes": spec.num_classes + 1,
        "min_size": spec.input.min_size,
        "max_size": spec.input.max_size,
        "image_mean": list(spec.input.mean),
        "image_std": list(spec.input.std),
        "rpn_anchor_generator": AnchorGenerator(sizes, (ASPECT_RATIOS,) * len(sizes)),
        "box_roi_pool": MultiScaleRoIAlign(levels, 7, 2),
        "size_divisible": backbone.divisor,
    }


def build(spec: BuildSpec) -> nn.Module:
    norm = norm_of(spec.options, None, NORMS)
    backbone = PyramidBackbone(needed_backbone(spec), norm=norm)
    module = FasterRCNN(backbone, **pyramid_arguments(spec, backbone))
    module.norm_kind = norm
    return module


def face(module: nn.Module) -> Face:
    backbone = module.backbone
    pixels = max(PROBE_PIXELS, 4 * backbone.divisor)
    neck = probe_neck(backbone.body.run, backbone.takes, backbone.neck, backbone, pixels=pixels)
    two_stage = Face(
        body=backbone.body.run,
        stages=backbone.body.stages,
        neck=neck,
        roi_levels=neck.names[: backbone.levels],
        box_head=module.roi_heads.box_head,
        penultimate_channels=module.roi_heads.box_predictor.cls_score.in_features,
        head_modules=("roi_heads.box_predictor", "roi_heads.mask_predictor"),
        replace_head=lambda num_classes: replace_predictors(module, num_classes),
    )
    return with_box_head(two_stage, module.roi_heads)


register(
    Architecture(
        name="detrank/fasterrcnn_fpn",
        title="Faster R-CNN with a feature pyramid over any backbone",
        family="two_stage",
        input=Input(),
        build=build,
        face=face,
        places_backbone=True,
        norms=NORMS,
    )
)
