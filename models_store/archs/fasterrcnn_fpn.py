"""``detrank/fasterrcnn_fpn`` and ``detrank/maskrcnn``: any backbone in torchvision's Faster or Mask R-CNN."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

from models_store.archs.aligned import AlignedRoIAlign, ExactAnchors, pooler
from models_store.archs.anchors import chosen
from models_store.archs.base import Architecture, BuildSpec, register
from models_store.archs.face import ROI_OUTPUT, ROI_SAMPLING, Face
from models_store.archs.layout import layout_of
from models_store.archs.pyramid import OUT_CHANNELS, PyramidBackbone
from models_store.archs.source import with_box_head
from models_store.archs.torchvision_rcnn import MASK_HIDDEN, replace_predictors
from models_store.bodies.norms import norm_of
from models_store.bodies.stages import PROBE_PIXELS
from models_store.bodies.strides import stride_in_1x1
from models_store.errors import Unusable
from models_store.manifest import Input

ANCHOR_PER_STRIDE = 8
ASPECT_RATIOS = (0.5, 1.0, 2.0)
# On one map without a pyramid all sizes are there, as in torchvision's own example.
SINGLE_SIZES = (32, 64, 128, 256, 512)
ROI_CELLS = 7 * 7
MASK_CELLS = 14
# There is no norm outside the body that groups could replace.
NORMS = ("frozen", "bn", "syncbn")
# How many regions are proposed and learned from, by torchvision's names: its own numbers are for 800 pixels, and on
# small pictures most of the time goes there.
REGIONS = (
    "rpn_pre_nms_top_n_train",
    "rpn_pre_nms_top_n_test",
    "rpn_post_nms_top_n_train",
    "rpn_post_nms_top_n_test",
    "rpn_batch_size_per_image",
    "box_batch_size_per_image",
    "box_detections_per_img",
)


def needed_backbone(spec: BuildSpec) -> str:
    if spec.backbone is None:
        raise Unusable("missing_backbone", "this architecture needs a backbone, such as torchvision/resnet50")
    return spec.backbone


def anchors_of(backbone: PyramidBackbone, *, exact: bool = False) -> AnchorGenerator:
    """torchvision's usual ones: a size a level, from the stride of the finest; all sizes on a single map.

    ``exact``: not rounded to whole pixels.
    """
    kind = ExactAnchors if exact else AnchorGenerator
    if backbone.single:
        return kind((SINGLE_SIZES,), (ASPECT_RATIOS,))
    sizes = tuple((ANCHOR_PER_STRIDE * backbone.first_stride * 2**i,) for i in range(len(backbone.names)))
    return kind(sizes, (ASPECT_RATIOS,) * len(sizes))


def pyramid_arguments(spec: BuildSpec, backbone: PyramidBackbone) -> dict[str, Any]:
    """What every two-stage detector over the pyramid is given: our input, anchors, ROI align.

    Options: ``anchors`` (of any number a cell) and those of ``REGIONS``.
    """
    levels = [str(i) for i in range(backbone.levels)]
    return {
        "num_classes": spec.num_classes + 1,
        "min_size": spec.input.min_size,
        "max_size": spec.input.max_size,
        "image_mean": list(spec.input.mean),
        "image_std": list(spec.input.std),
        "rpn_anchor_generator": chosen(
            spec.options, anchors_of(backbone, exact=bool(spec.options.get("roi_aligned")))
        ),
        "box_roi_pool": pooler(bool(spec.options.get("roi_aligned")), levels, ROI_OUTPUT, ROI_SAMPLING),
        "size_divisible": backbone.divisor,
        **{name: int(spec.options[name]) for name in REGIONS if name in spec.options},
    }


def build(detector: type[FasterRCNN], spec: BuildSpec) -> nn.Module:
    """Options: ``norm``, ``norm_eps``, ``pyramid``, ``anchors``, those of ``REGIONS``, ``neck_channels`` (of the pyramid) and
    ``head_width`` (of the box head), ``stride_in_1x1`` and ``roi_aligned`` (as detectron2 aligns regions and counts anchors).

    The widths are torchvision's, 256 and 1024, where they are not given; narrower ones are for small pictures on a CPU.
    """
    norm = norm_of(spec.options, None, NORMS)
    eps = spec.options.get("norm_eps")
    backbone = PyramidBackbone(
        needed_backbone(spec),
        norm=norm,
        channels=int(spec.options.get("neck_channels", OUT_CHANNELS)),
        layout=layout_of(spec.options),
        norm_eps=None if eps is None else float(eps),
    )
    if spec.options.get("stride_in_1x1"):
        stride_in_1x1(backbone.body)
    aligned = bool(spec.options.get("roi_aligned"))
    arguments = pyramid_arguments(spec, backbone)
    if detector is MaskRCNN:
        levels = [str(i) for i in range(backbone.levels)]
        arguments["mask_roi_pool"] = pooler(aligned, levels, MASK_CELLS, ROI_SAMPLING)
    if width := spec.options.get("head_width"):
        outputs = arguments.pop("num_classes")
        arguments |= {
            "box_head": TwoMLPHead(backbone.out_channels * ROI_CELLS, int(width)),
            "box_predictor": FastRCNNPredictor(int(width), outputs),
        }
        if detector is MaskRCNN:
            arguments["mask_predictor"] = MaskRCNNPredictor(MASK_HIDDEN, MASK_HIDDEN, outputs)
    module = detector(backbone, **arguments)
    module.norm_kind = norm
    return module


def face(module: nn.Module) -> Face:
    backbone = module.backbone
    neck = None if backbone.single else backbone.probed(max(PROBE_PIXELS, 4 * backbone.divisor))
    two_stage = Face(
        aligned=isinstance(module.roi_heads.box_roi_pool, AlignedRoIAlign),
        body=backbone.body.run,
        stages=backbone.body.stages,
        neck=neck,
        roi_levels=neck.names[: backbone.levels] if neck else (f"backbone.{backbone.single}",),
        box_head=module.roi_heads.box_head,
        penultimate_channels=module.roi_heads.box_predictor.cls_score.in_features,
        head_modules=("roi_heads.box_predictor", "roi_heads.mask_predictor"),
        replace_head=lambda num_classes: replace_predictors(module, num_classes),
    )
    return with_box_head(two_stage, module.roi_heads)


for _name, _title, _detector in (
    ("fasterrcnn_fpn", "Faster R-CNN with a feature pyramid over any backbone", FasterRCNN),
    ("maskrcnn", "Mask R-CNN with a feature pyramid over any backbone", MaskRCNN),
):
    register(
        Architecture(
            name=f"detrank/{_name}",
            title=_title,
            family="two_stage",
            input=Input(),
            build=partial(build, _detector),
            face=face,
            places_backbone=True,
            norms=NORMS,
        )
    )
