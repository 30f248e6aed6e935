"""``detrank/maskrcnn_c4``: Mask R-CNN on one stride-16 map, a ResNet's last stage as its head, one extra norm.

The head that MoCo's and PyContrast's detection results use (arXiv 1911.05722, appendix): ROI align 14x14, res5, one
batch norm over its channels, then the mean for boxes and the map for masks.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from models_store.archs.anchors import set_anchors
from models_store.archs.base import Architecture, BuildSpec, register
from models_store.archs.face import Face
from models_store.archs.fasterrcnn_fpn import ASPECT_RATIOS, needed_backbone
from models_store.archs.source import with_box_head
from models_store.archs.torchvision_rcnn import MASK_HIDDEN, replace_predictors
from models_store.bodies.build import build_body
from models_store.bodies.norms import KINDS, layer_of, norm_of, set_body_norms
from models_store.errors import Unusable
from models_store.manifest import Input

STAGE, LAST = "c4", "c5"
ROI_OUTPUT = 14
ANCHOR_SIZES = (32, 64, 128, 256, 512)
DIVISOR = 32


class Unregistered:
    """Holds a module without making it a child: its tensors stay under one name."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module


class C4Backbone(nn.Module):
    """``body.*`` is the whole ResNet; ``forward`` stops at stride 16."""

    def __init__(self, backbone: str, norm: str | None) -> None:
        super().__init__()
        self.body = build_body(backbone)
        set_body_norms(self.body, norm)
        stages = {stage.name: stage for stage in self.body.stages}
        if not hasattr(self.trunk, "layer4") or not {STAGE, LAST} <= set(stages):
            raise Unusable(
                "wrong_architecture",
                f"{backbone} is no ResNet: its last stage cannot be the head of detrank/maskrcnn_c4; place it in "
                "detrank/maskrcnn_fpn",
            )
        self.out_channels = stages[STAGE].channels
        self.last_channels = stages[LAST].channels

    @property
    def trunk(self) -> nn.Module:
        return getattr(self.body, "model", self.body)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict([("0", self.body.run(x, [STAGE])[STAGE])])


class Res5Head(nn.Module):
    """(n, C4, 14, 14) to (n, C5): the body's last stage, the extra norm, the mean over places."""

    def __init__(self, stage: nn.Module, channels: int, norm: str | None) -> None:
        super().__init__()
        self.stage = Unregistered(stage)
        layer = layer_of(norm)
        self.norm = layer(channels) if layer else nn.Identity()

    def maps(self, regions: Tensor) -> Tensor:
        """(n, C5, 7, 7), which the mask head reads."""
        return self.norm(self.stage.module(regions))

    def forward(self, regions: Tensor) -> Tensor:
        return self.maps(regions).mean(dim=(2, 3))


class SharedMaps(nn.Module):
    """The mask branch's maps by the box head's own modules."""

    def __init__(self, head: Res5Head) -> None:
        super().__init__()
        self.head = Unregistered(head)

    def forward(self, regions: Tensor) -> Tensor:
        return self.head.module.maps(regions)


def build(spec: BuildSpec) -> nn.Module:
    norm = norm_of(spec.options, "bn")
    backbone = C4Backbone(needed_backbone(spec), norm)
    head = Res5Head(backbone.trunk.layer4, backbone.last_channels, norm)
    module = MaskRCNN(
        backbone,
        min_size=spec.input.min_size,
        max_size=spec.input.max_size,
        image_mean=list(spec.input.mean),
        image_std=list(spec.input.std),
        size_divisible=DIVISOR,
        rpn_anchor_generator=AnchorGenerator((ANCHOR_SIZES,), (ASPECT_RATIOS,)),
        rpn_head=RPNHead(backbone.out_channels, len(ANCHOR_SIZES) * len(ASPECT_RATIOS)),
        rpn_pre_nms_top_n_train=12000,
        rpn_pre_nms_top_n_test=6000,
        box_roi_pool=MultiScaleRoIAlign(["0"], ROI_OUTPUT, 2),
        box_head=head,
        box_predictor=FastRCNNPredictor(backbone.last_channels, spec.num_classes + 1),
        mask_roi_pool=MultiScaleRoIAlign(["0"], ROI_OUTPUT, 2),
        mask_head=SharedMaps(head),
        mask_predictor=MaskRCNNPredictor(backbone.last_channels, MASK_HIDDEN, spec.num_classes + 1),
    )
    module.norm_kind = norm
    set_anchors(module, spec.options)
    return module


def face(module: nn.Module) -> Face:
    two_stage = Face(
        body=module.backbone.body.run,
        stages=module.backbone.body.stages,
        neck=None,
        roi_levels=(f"backbone.{STAGE}",),
        roi_output=ROI_OUTPUT,
        box_head=module.roi_heads.box_head,
        penultimate_channels=module.backbone.last_channels,
        # Fresh, the extra norm changes nothing: what stands before the predictors is all learned.
        identity_at_first=("roi_heads.box_head.norm.",),
        head_modules=("roi_heads.box_predictor", "roi_heads.mask_predictor"),
        replace_head=lambda num_classes: replace_predictors(module, num_classes),
    )
    return with_box_head(two_stage, module.roi_heads)


register(
    Architecture(
        name="detrank/maskrcnn_c4",
        title="Mask R-CNN C4 over a ResNet, its last stage and an extra norm as head",
        family="two_stage",
        input=Input(),
        build=build,
        face=face,
        places_backbone=True,
        norms=KINDS,
        notes=("for ResNets only",),
    )
)
