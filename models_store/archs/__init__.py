"""Every architecture, registered by importing its family's file."""

from models_store.archs import (
    detr,
    fasterrcnn_fpn,
    maskrcnn_c4,
    rcnn_fpn_v2,
    retinanet,
    ssd,
    torchvision_dense,
    torchvision_rcnn,
    yolox,
)
from models_store.archs.base import ARCHITECTURES, Architecture, BuildSpec

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "BuildSpec",
    "detr",
    "fasterrcnn_fpn",
    "maskrcnn_c4",
    "rcnn_fpn_v2",
    "retinanet",
    "ssd",
    "torchvision_dense",
    "torchvision_rcnn",
    "yolox",
]
