"""Any backbone in the two-stage detectors with norms in pyramid and heads.

``detrank/fasterrcnn_fpn_v2`` is the recipe of arXiv 2111.11429, ``detrank/maskrcnn_fpn`` the Mask R-CNN that
self-supervised backbones are compared in (batch norms in body, pyramid, box and mask head; one RPN convolution).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from models_store.archs.base import Architecture, BuildSpec, register
from models_store.archs.face import ROI_OUTPUT
from models_store.archs.fasterrcnn_fpn import face, needed_backbone, pyramid_arguments
from models_store.archs.layout import layout_of
from models_store.archs.pyramid import PyramidBackbone
from models_store.bodies.norms import KINDS, NormLayer, layer_of, norm_of
from models_store.manifest import Input

MASK_OUTPUT = 14
PENULTIMATE = 1024
PROPOSALS = 1000


def box_head(channels: int, norm_layer: NormLayer | None) -> nn.Module:
    """Four convolutions and one fully connected layer (4conv1fc)."""
    return FastRCNNConvFCHead((channels, ROI_OUTPUT, ROI_OUTPUT), [256] * 4, [PENULTIMATE], norm_layer)


def rpn_head(backbone: PyramidBackbone, arguments: Mapping[str, Any], conv_depth: int = 1) -> nn.Module:
    """For the anchors of ``arguments``."""
    count = arguments["rpn_anchor_generator"].num_anchors_per_location()[0]
    return RPNHead(backbone.out_channels, count, conv_depth=conv_depth)


def build_faster(spec: BuildSpec) -> nn.Module:
    norm = norm_of(spec.options, "bn")
    backbone = PyramidBackbone(
        needed_backbone(spec), norm=norm, norm_in_neck=True, layout=layout_of(spec.options)
    )
    arguments = pyramid_arguments(spec, backbone)
    module = FasterRCNN(
        backbone,
        rpn_head=rpn_head(backbone, arguments, conv_depth=2),
        box_head=box_head(backbone.out_channels, layer_of(norm)),
        **arguments,
    )
    module.norm_kind = norm
    return module


def build_mask(spec: BuildSpec) -> nn.Module:
    norm = norm_of(spec.options, "bn")
    backbone = PyramidBackbone(
        needed_backbone(spec), norm=norm, norm_in_neck=True, layout=layout_of(spec.options)
    )
    levels = [str(i) for i in range(backbone.levels)]
    arguments = {
        "rpn_post_nms_top_n_train": PROPOSALS,
        "rpn_post_nms_top_n_test": PROPOSALS,
        **pyramid_arguments(spec, backbone),
    }
    module = MaskRCNN(
        backbone,
        rpn_head=rpn_head(backbone, arguments),
        box_head=box_head(backbone.out_channels, layer_of(norm)),
        mask_roi_pool=MultiScaleRoIAlign(levels, MASK_OUTPUT, 2),
        mask_head=MaskRCNNHeads(backbone.out_channels, [256] * 4, 1, layer_of(norm)),
        **arguments,
    )
    module.norm_kind = norm
    return module


for _name, _title, _build in (
    ("fasterrcnn_fpn_v2", "Faster R-CNN v2 (norms in pyramid and head) over any backbone", build_faster),
    ("maskrcnn_fpn", "Mask R-CNN with norms in pyramid and heads over any backbone", build_mask),
):
    register(
        Architecture(
            name=f"detrank/{_name}",
            title=_title,
            family="two_stage",
            input=Input(),
            build=_build,
            face=face,
            places_backbone=True,
            norms=KINDS,
        )
    )
