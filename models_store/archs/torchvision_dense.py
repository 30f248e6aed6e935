"""torchvision's one-stage detectors with a pyramid: RetinaNet (both recipes) and FCOS."""

from __future__ import annotations

from functools import partial

from torch import nn
from torchvision.models.detection import FCOS

from models_store.archs.base import Architecture, register
from models_store.archs.common import build_torchvision, walked_pyramid
from models_store.archs.face import Face
from models_store.archs.source import best_anchor, dense_source, foreground_sigmoids, nearest_point
from models_store.manifest import Input

LOGITS = "head.classification_head.cls_logits"


def replace_logits(module: nn.Module, num_classes: int) -> tuple[str, ...]:
    """A fresh last classification layer; output 0 stays reserved as in torchvision's own weights."""
    head = module.head.classification_head
    old = head.cls_logits
    anchors = old.out_channels // head.num_classes
    head.cls_logits = nn.Conv2d(old.in_channels, anchors * (num_classes + 1), 3, padding=1)
    head.num_classes = num_classes + 1
    module.reserved = 1
    return (f"{LOGITS}.weight", f"{LOGITS}.bias")


def face(module: nn.Module) -> Face:
    walker, neck = walked_pyramid(module.backbone)
    match = nearest_point if isinstance(module, FCOS) else best_anchor
    return Face(
        body=walker.run,
        stages=walker.stages,
        neck=neck,
        roi_levels=neck.names[: len(walker.taken)],
        tower=module.head.classification_head.conv,
        penultimate_channels=module.head.classification_head.cls_logits.in_channels,
        replace_head=partial(replace_logits, module),
        source=dense_source(module, neck.names, match, partial(foreground_sigmoids, module)),
    )


TITLES = {
    "retinanet_resnet50_fpn": "RetinaNet, ResNet-50, FPN",
    "retinanet_resnet50_fpn_v2": "RetinaNet v2, ResNet-50, FPN",
    "fcos_resnet50_fpn": "FCOS, ResNet-50, FPN",
}

for _builder, _title in TITLES.items():
    register(
        Architecture(
            name=f"torchvision/{_builder}",
            title=_title,
            family="one_stage",
            input=Input(),
            build=partial(build_torchvision, _builder),
            face=face,
            builder=_builder,
        )
    )
