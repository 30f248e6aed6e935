"""torchvision's two-stage detectors: Faster, Mask and Keypoint R-CNN with a pyramid."""

from __future__ import annotations

from functools import partial

from torch import nn
from torchvision.models import detection
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

from models_store.archs.base import Architecture, BuildSpec, register
from models_store.archs.common import build_torchvision, walked_pyramid
from models_store.archs.face import Face
from models_store.archs.source import with_box_head
from models_store.manifest import Input

MASK_HIDDEN = 256


def build(builder: str, spec: BuildSpec) -> nn.Module:
    keypoints = spec.options.get("num_keypoints")
    return build_torchvision(builder, spec, **({"num_keypoints": keypoints} if keypoints else {}))


def replace_predictors(module: nn.Module, num_classes: int) -> tuple[str, ...]:
    """Fresh box (and mask) predictors for ``num_classes`` + background; their parameter names.

    A keypoint predictor does not depend on the classes and stays.
    """
    heads = module.roi_heads
    heads.box_predictor = FastRCNNPredictor(heads.box_predictor.cls_score.in_features, num_classes + 1)
    fresh = ["roi_heads.box_predictor"]
    if getattr(heads, "mask_predictor", None) is not None:
        channels = heads.mask_predictor.conv5_mask.in_channels
        heads.mask_predictor = MaskRCNNPredictor(channels, MASK_HIDDEN, num_classes + 1)
        fresh.append("roi_heads.mask_predictor")
    return tuple(n for n, _ in module.named_parameters() if n.startswith(tuple(f + "." for f in fresh)))


def face(module: nn.Module) -> Face:
    walker, neck = walked_pyramid(module.backbone)
    # The last map is the extra pool for proposals; boxes are never read from it.
    heads = module.roi_heads
    made = Face(
        body=walker.run,
        stages=walker.stages,
        neck=neck,
        roi_levels=neck.names[: len(walker.taken)],
        box_head=heads.box_head,
        penultimate_channels=heads.box_predictor.cls_score.in_features,
        head_modules=("roi_heads.box_predictor", "roi_heads.mask_predictor"),
        replace_head=lambda num_classes: replace_predictors(module, num_classes),
    )
    return with_box_head(made, heads)


TITLES = {
    "fasterrcnn_resnet50_fpn": "Faster R-CNN, ResNet-50, FPN",
    "fasterrcnn_resnet50_fpn_v2": "Faster R-CNN v2, ResNet-50, FPN (recipe of arXiv 2111.11429)",
    "fasterrcnn_mobilenet_v3_large_fpn": "Faster R-CNN, MobileNetV3-Large, FPN",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "Faster R-CNN, MobileNetV3-Large, FPN, 320 pixels",
    "maskrcnn_resnet50_fpn": "Mask R-CNN, ResNet-50, FPN",
    "maskrcnn_resnet50_fpn_v2": "Mask R-CNN v2, ResNet-50, FPN",
    "keypointrcnn_resnet50_fpn": "Keypoint R-CNN, ResNet-50, FPN (people)",
}
SMALL = Input(min_size=320, max_size=640)
INPUTS = {"fasterrcnn_mobilenet_v3_large_320_fpn": SMALL}

for _builder, _title in TITLES.items():
    if not hasattr(detection, _builder):
        raise ImportError(
            f"this torchvision has no {_builder}: install the version that pyproject.toml asks for"
        )
    register(
        Architecture(
            name=f"torchvision/{_builder}",
            title=_title,
            family="two_stage",
            input=INPUTS.get(_builder, Input()),
            build=partial(build, _builder),
            face=face,
            builder=_builder,
        )
    )
