"""``detrank/fasterrcnn_fpn``: any backbone placed in torchvision's Faster R-CNN with a feature pyramid."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from models_store.archs.base import Architecture, BuildSpec, register
from models_store.archs.face import Face
from models_store.archs.norms import norm_of
from models_store.archs.pyramid import OUT_CHANNELS, PyramidBackbone
from models_store.archs.source import with_box_head
from models_store.archs.stages import PROBE_PIXELS
from models_store.archs.torchvision_rcnn import replace_predictors
from models_store.errors import Unusable
from models_store.manifest import Input

ANCHOR_PER_STRIDE = 8
ASPECT_RATIOS = (0.5, 1.0, 2.0)
ROI_CELLS = 7 * 7
# There is no norm outside the body that groups could replace.
NORMS = ("frozen", "bn", "syncbn")
# How many regions are proposed and learned from, by torchvision's names: its own numbers are for 800 pixels, and on
# small pictures most of the time goes there.
REGIONS = (
    "rpn_pre_nms_top_n_train", "rpn_pre_nms_top_n_test", "rpn_post_nms_top_n_train", "rpn_post_nms_top_n_test",
    "rpn_batch_size_per_image", "box_batch_size_per_image", "box_detections_per_img",
)  # fmt: skip


def needed_backbone(spec: BuildSpec) -> str:
    if spec.backbone is None:
        raise Unusable("missing_backbone", "this architecture needs a backbone, such as torchvision/resnet50")
    return spec.backbone


def pyramid_arguments(spec: BuildSpec, backbone: PyramidBackbone) -> dict[str, Any]:
    """What every two-stage detector over the pyramid is given: our input, one anchor size a level, ROI align.

    Options: those of ``REGIONS``.
    """
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
        **{name: int(spec.options[name]) for name in REGIONS if name in spec.options},
    }


def build(spec: BuildSpec) -> nn.Module:
    """Options: ``norm``, those of ``REGIONS``, ``neck_channels`` (of the pyramid) and ``head_width`` (of the box head).

    The widths are torchvision's, 256 and 1024, where they are not given; narrower ones are for small pictures on a CPU.
    """
    norm = norm_of(spec.options, None, NORMS)
    channels = int(spec.options.get("neck_channels", OUT_CHANNELS))
    backbone = PyramidBackbone(needed_backbone(spec), norm=norm, channels=channels)
    arguments = pyramid_arguments(spec, backbone)
    if width := spec.options.get("head_width"):
        arguments |= {
            "box_head": TwoMLPHead(channels * ROI_CELLS, int(width)),
            "box_predictor": FastRCNNPredictor(int(width), arguments.pop("num_classes")),
        }
    module = FasterRCNN(backbone, **arguments)
    module.norm_kind = norm
    return module


def face(module: nn.Module) -> Face:
    backbone = module.backbone
    neck = backbone.probed(max(PROBE_PIXELS, 4 * backbone.divisor))
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
