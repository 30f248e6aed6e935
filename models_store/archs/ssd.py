"""Single-shot detectors of one fixed input size: torchvision's SSD300 and SSDLite320, and our SSDLite MobileNetV2."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model, mobilenet_v2
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet, SSDLiteHead

from models_store.archs.base import Architecture, BuildSpec, register
from models_store.archs.common import apply_input
from models_store.archs.face import Face
from models_store.archs.necks import Needs, Run, probe_neck
from models_store.archs.source import Levels, best_anchor, dense_source, without_background
from models_store.bodies.stages import find_stages, walk
from models_store.manifest import Input

HALF = (0.5, 0.5, 0.5)
ROI_STRIDE = 16
VGG_PROBE_PIXELS = 160
VGG_MAPS = 3
VGG_LEAST_CELLS = 3
LITE_PROBE_PIXELS = 512


def build_torchvision_ssd(builder: str, spec: BuildSpec) -> nn.Module:
    module = get_model(builder, weights=None, weights_backbone=None, num_classes=spec.num_classes + 1)
    apply_input(module, spec.input)
    return module


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: output ceil(n / stride), the odd cell right and bottom."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for axis in (1, 0):
            n, stride, kernel = x.shape[2 + axis], self.stride[axis], self.kernel_size[axis]
            total = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def pad_like_tensorflow(module: nn.Module) -> None:
    """Replace every strided convolution by one with SAME padding; keys stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.stride != (1, 1):
            same = SameConv2d(
                child.in_channels,
                child.out_channels,
                child.kernel_size,
                child.stride,
                groups=child.groups,
                bias=child.bias is not None,
                device=child.weight.device,
            )
            setattr(module, name, same)
        else:
            pad_like_tensorflow(child)


def build_ssdlite_mobilenet_v2(spec: BuildSpec) -> nn.Module:
    """SSDLite MobileNetV2 of TensorFlow's detection zoo: three default boxes on the first map, SAME padding."""
    features = mobilenet_v2(weights=None).features
    # torchvision's extractor asks for MobileNetV3's name of the block that is split between the two maps.
    features[14].block = features[14].conv
    backbone = SSDLiteFeatureExtractorMobileNet(features, c4_pos=14, norm_layer=nn.BatchNorm2d)
    pad_like_tensorflow(backbone)
    anchors = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    side = 0.2 * math.sqrt(2)
    anchors._wh_pairs[0] = torch.tensor([[0.1, 0.1], [side, side / 2], [side / 2, side]])
    counts = [3, 6, 6, 6, 6, 6]
    head = SSDLiteHead([576, 1280, 512, 256, 256, 128], counts, spec.num_classes + 1, nn.BatchNorm2d)
    module = SSD(
        backbone,
        anchors,
        (300, 300),
        spec.num_classes + 1,
        head=head,
        image_mean=list(HALF),
        image_std=list(HALF),
        score_thresh=0.01,
        nms_thresh=0.6,
        detections_per_img=100,
    )
    apply_input(module, spec.input)
    return module


def replace_logits(module: nn.Module, num_classes: int) -> tuple[str, ...]:
    """Fresh last classification layers on every map; the depthwise layers before them stay."""
    head = module.head.classification_head
    fresh = []
    for index, block in enumerate(head.module_list):
        old = block[1] if isinstance(block, nn.Sequential) else block
        outputs = old.out_channels // head.num_columns * (num_classes + 1)
        new = nn.Conv2d(old.in_channels, outputs, old.kernel_size, padding=old.padding)
        key = f"head.classification_head.module_list.{index}"
        if isinstance(block, nn.Sequential):
            block[1] = new
            key += ".1"
        else:
            head.module_list[index] = new
        fresh += [f"{key}.weight", f"{key}.bias"]
    head.num_columns = num_classes + 1
    return tuple(fresh)


def _chain_face(
    module: nn.Module,
    steps: list[nn.Module],
    takes: tuple[str, ...],
    run: Run,
    needs: Needs,
    count: int,
    pixels: int,
    levels: Levels | None = None,
) -> Face:
    stages = find_stages(steps, pixels=pixels)
    index = {stage.name: stage.index for stage in stages}

    def body(x: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        maps = walk(steps, x, {index[name] for name in names})
        return {name: maps[index[name]] for name in names}

    neck = probe_neck(body, takes, run, needs, module.backbone, count=count, pixels=pixels)
    return Face(
        body=body,
        stages=stages,
        neck=neck,
        roi_levels=(neck.names[neck.strides.index(ROI_STRIDE)],),
        replace_head=partial(replace_logits, module),
        source=dense_source(module, neck.names, best_anchor, without_background, levels),
    )


def lite_face(module: nn.Module) -> Face:
    backbone = module.backbone
    steps = [*backbone.features[0], *backbone.features[1]]

    def needs(wanted: Collection[int]) -> set[str]:
        return {"c4" if index == 0 else "c5" for index in wanted}

    def run(maps: Mapping[str, Tensor], wanted: Collection[int]) -> dict[int, Tensor]:
        found = {index: maps[name] for index, name in enumerate(("c4", "c5")) if name in maps}
        for index, block in enumerate(backbone.extra, start=2):
            if index <= max(wanted):
                found[index] = block(found[index - 1])
        return found

    return _chain_face(
        module, steps, ("c4", "c5"), run, needs, 2 + len(backbone.extra), pixels=LITE_PROBE_PIXELS
    )


def vgg_face(module: nn.Module) -> Face:
    backbone = module.backbone
    steps = [*backbone.features, *backbone.extra[0]]

    def needs(wanted: Collection[int]) -> set[str]:
        return {"c3" if index == 0 else "c4" for index in wanted}

    def run(maps: Mapping[str, Tensor], wanted: Collection[int]) -> dict[int, Tensor]:
        makers = (
            lambda: backbone.scale_weight.view(1, -1, 1, 1) * F.normalize(maps["c3"]),
            lambda: maps["c4"],
            lambda: backbone.extra[1](maps["c4"]),
        )
        return {index: makers[index]() for index in wanted}

    def levels(found: Mapping[str, Tensor]) -> list[Tensor]:
        maps = list(found.values())
        for block in backbone.extra[VGG_MAPS - 1 :]:
            # Their unpadded convolutions leave nothing of the last map of a small input.
            if min(maps[-1].shape[-2:]) < VGG_LEAST_CELLS:
                break
            maps.append(block(maps[-1]))
        return maps

    # The maps behind the third are smaller than most objects.
    return _chain_face(
        module, steps, ("c3", "c4"), run, needs, VGG_MAPS, pixels=VGG_PROBE_PIXELS, levels=levels
    )


register(
    Architecture(
        name="torchvision/ssd300_vgg16",
        title="SSD300, VGG-16",
        family="ssd",
        input=Input(
            min_size=300,
            max_size=300,
            fixed_size=(300, 300),
            divisor=1,
            mean=(0.48235, 0.45882, 0.40784),
            std=(1 / 255, 1 / 255, 1 / 255),
        ),
        build=partial(build_torchvision_ssd, "ssd300_vgg16"),
        face=vgg_face,
        builder="ssd300_vgg16",
    )
)
register(
    Architecture(
        name="torchvision/ssdlite320_mobilenet_v3_large",
        title="SSDLite320, MobileNetV3-Large",
        family="ssd",
        input=Input(min_size=320, max_size=320, fixed_size=(320, 320), divisor=1, mean=HALF, std=HALF),
        build=partial(build_torchvision_ssd, "ssdlite320_mobilenet_v3_large"),
        face=lite_face,
        builder="ssdlite320_mobilenet_v3_large",
    )
)
register(
    Architecture(
        name="detrank/ssdlite_mobilenet_v2",
        title="SSDLite, MobileNetV2, with TensorFlow's padding",
        family="ssd",
        input=Input(min_size=300, max_size=300, fixed_size=(300, 300), divisor=1, mean=HALF, std=HALF),
        build=build_ssdlite_mobilenet_v2,
        face=lite_face,
        notes=("its scores were trained as sigmoids and are read by softmax, within 0.01 AP",),
    )
)
