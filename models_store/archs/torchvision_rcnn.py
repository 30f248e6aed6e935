"""torchvision's two-stage detectors: Faster, Mask and Keypoint R-CNN with a pyramid."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from functools import partial

from torch import Tensor, nn
from torchvision.models import detection, get_model
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

from models_store.archs.base import Architecture, BuildSpec, register
from models_store.archs.face import Face, probe_neck
from models_store.archs.stages import Stage, find_stages, walk
from models_store.manifest import Input

MASK_HIDDEN = 256


class BodyWalk:
    """Stages of an IntermediateLayerGetter: an ordered chain whose maps are named by stride."""

    def __init__(self, body: nn.ModuleDict) -> None:
        self.steps: Sequence[nn.Module] = list(body.values())
        self.stages: tuple[Stage, ...] = find_stages(self.steps)
        names = list(body)
        self.taken = [names.index(name) for name in body.return_layers]

    def run(self, x: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Stage names, and ``#<index>`` for a step that is no stage of its own."""
        index = {s.name: s.index for s in self.stages}
        wanted = {name: int(name[1:]) if name.startswith("#") else index[name] for name in names}
        maps = walk(self.steps, x, set(wanted.values()))
        return {name: maps[i] for name, i in wanted.items()}

    @property
    def takes(self) -> tuple[str, ...]:
        """Where the pyramid reads, as ``run`` names it."""
        by_index = {s.index: s.name for s in self.stages}
        return tuple(by_index.get(i, f"#{i}") for i in self.taken)


def pyramid_run(fpn: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    return list(fpn(OrderedDict((str(i), x) for i, x in enumerate(maps))).values())


def build(builder: str, spec: BuildSpec) -> nn.Module:
    """torchvision's builder with fresh weights, our input and ``options.frozen_bn_eps`` where recorded."""
    module = get_model(
        builder,
        weights=None,
        weights_backbone=None,
        num_classes=spec.num_classes + 1,
        **({"num_keypoints": spec.options["num_keypoints"]} if "num_keypoints" in spec.options else {}),
    )
    apply_input(module, spec.input)
    apply_eps(module, spec.options.get("frozen_bn_eps"))
    return module


def apply_input(module: nn.Module, wanted: Input) -> None:
    transform = module.transform
    transform.min_size, transform.max_size = (wanted.min_size,), wanted.max_size
    transform.image_mean, transform.image_std = list(wanted.mean), list(wanted.std)
    transform.size_divisible = wanted.divisor
    if wanted.fixed_size is not None:
        # torchvision keeps it as (width, height).
        transform.fixed_size = (wanted.fixed_size[1], wanted.fixed_size[0])


def apply_eps(module: nn.Module, eps: float | None) -> None:
    """The first COCO weights were trained with an epsilon of 0 in their frozen norms."""
    if eps is None:
        return
    for part in module.modules():
        if type(part).__name__ == "FrozenBatchNorm2d":
            part.eps = eps


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
    walker = BodyWalk(module.backbone.body)
    neck = probe_neck(walker.run, walker.takes, partial(pyramid_run, module.backbone.fpn), module.backbone)
    # The last map is the extra pool for proposals; boxes are never read from it.
    heads = module.roi_heads
    return Face(
        body=walker.run,
        stages=walker.stages,
        neck=neck,
        roi_levels=neck.names[: len(walker.taken)],
        box_head=heads.box_head,
        penultimate_channels=heads.box_predictor.cls_score.in_features,
        head_modules=("roi_heads.box_predictor", "roi_heads.mask_predictor"),
        replace_head=lambda num_classes: replace_predictors(module, num_classes),
    )


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
        raise ImportError(f"this torchvision has no {_builder}: install the version that pyproject.toml asks for")
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

