"""``detrank/yolox``: YOLOX of any published size, with torchvision's manners around its network."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from models_store.archs.base import Architecture, BuildSpec, register
from models_store.archs.face import Face, SourceHead
from models_store.archs.necks import probe_neck
from models_store.bodies.norms import norm_of
from models_store.bodies.stages import find_stages, walk
from models_store.errors import Unusable
from models_store.manifest import Input
from models_store.source import normalised_sigmoids
from models_store.yolox.losses import Points, losses
from models_store.yolox.network import ACTIVATIONS, GREY, STRIDES, Head, Pafpn, Sizes, cells

DIVISOR = 32
LEAST_SCORE, NMS_IOU, MOST = 0.01, 0.65, 100
ROI_LEVEL = "neck.p4"
NORMS = ("frozen", "bn")
# YOLOX-s.
SMALL = {"base": 32, "blocks": [1, 3, 3, 1], "neck_blocks": 1, "head": 128, "depthwise": False}
# Pixels in 0 to 255, counted from the grey that pads them.
PUBLISHED = Input(min_size=640, max_size=640, mean=(GREY / 255,) * 3, std=(1 / 255,) * 3, divisor=DIVISOR)


class Yolox(nn.Module):
    """torchvision's manners: a list of pictures in, losses or predictions out. Keys are the published code's."""

    def __init__(self, sizes: Sizes, num_classes: int, spec: Input) -> None:
        super().__init__()
        seen = math.isclose(spec.std[0], PUBLISHED.std[0], rel_tol=1e-4)
        self.backbone = Pafpn(sizes, shift=GREY if seen else 0.0)
        self.head = Head(sizes, num_classes)
        self.transform = GeneralizedRCNNTransform(
            spec.min_size, spec.max_size, list(spec.mean), list(spec.std), size_divisible=DIVISOR
        )

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, moved = self.transform(images, targets)
        maps = list(self.backbone(batch.tensors).values())
        boxes, objects, classes = self.head(maps)
        if self.training:
            return losses(boxes, objects, classes, points_of(maps), moved or [])
        found = [
            best(boxes[row], objects[row], classes[row], size) for row, size in enumerate(batch.image_sizes)
        ]
        return self.transform.postprocess(found, batch.image_sizes, sizes)


def best(boxes: Tensor, objects: Tensor, classes: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """Each point's best class, at least 0.01 with its objectness, without what overlaps a better one of its class."""
    scores, labels = (classes.sigmoid() * objects.sigmoid()[:, None]).max(dim=1)
    kept = torch.nonzero(scores >= LEAST_SCORE).flatten()
    kept = kept[batched_nms(boxes[kept], scores[kept], labels[kept], NMS_IOU)][:MOST]
    return {
        "boxes": clip_boxes_to_image(boxes[kept], size),
        "scores": scores[kept],
        "labels": labels[kept],
    }


def points_of(maps: Sequence[Tensor]) -> Points:
    centres = [
        (cells(x.shape[-2], x.shape[-1], x) + 0.5) * stride for x, stride in zip(maps, STRIDES, strict=True)
    ]
    strides = [c.new_full((len(c),), stride) for c, stride in zip(centres, STRIDES, strict=True)]
    return Points(torch.cat(centres), torch.cat(strides))


def sizes_of(options: Mapping[str, Any]) -> Sizes:
    """From the options, which are read from a file's shapes; YOLOX-s without them. Raises Unusable ``bad_override``."""
    given = options.get("sizes", SMALL)
    activation = options.get("activation", "silu")
    if activation not in ACTIVATIONS:
        raise Unusable("bad_override", f"activation {str(activation)[:30]!r}: {' | '.join(ACTIVATIONS)}")
    one, two, three, four = (int(n) for n in given["blocks"])
    return Sizes(
        base=int(given["base"]),
        blocks=(one, two, three, four),
        neck_blocks=int(given["neck_blocks"]),
        head=int(given["head"]),
        depthwise=bool(given["depthwise"]),
        activation=activation,
    )


def build(spec: BuildSpec) -> nn.Module:
    """Options: ``sizes``, ``activation`` (silu where not given), ``norm`` (statistics that move in training: bn)."""
    module = Yolox(sizes_of(spec.options), spec.num_classes, spec.input)
    module.norm_kind = norm_of(spec.options, None, NORMS)
    return module


def face(module: nn.Module) -> Face:
    neck = module.backbone
    steps = neck.backbone.steps
    stages = find_stages(steps)
    index = {stage.name: stage.index for stage in stages}
    takes = ("c3", "c4", "c5")

    def body(x: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        maps = walk(steps, x, {index[name] for name in names})
        return {name: maps[index[name]] for name in names}

    def run(maps: Mapping[str, Tensor], wanted: Collection[int]) -> dict[int, Tensor]:
        return neck.maps(*(maps[name] for name in takes), wanted)

    probed = probe_neck(body, takes, run, lambda wanted: takes if wanted else (), neck, count=len(STRIDES))

    def probabilities(
        maps: Mapping[str, Tensor], boxes: Sequence[Tensor], image_hw: tuple[int, int]
    ) -> Tensor:
        found, _, classes = module.head([maps[name] for name in probed.names])
        picked = [
            classes[row, box_iou(given.to(found), found[row]).argmax(dim=1)]
            for row, given in enumerate(boxes)
        ]
        return normalised_sigmoids(torch.cat(picked))

    return Face(
        body=body,
        stages=stages,
        neck=probed,
        # Its maps have different widths: regions are read from the middle one.
        roi_levels=(ROI_LEVEL,),
        replace_head=lambda num_classes: replace_classes(module, num_classes),
        source=SourceHead(probed.names, ("backbone.", "head."), probabilities),
    )


def replace_classes(module: nn.Module, num_classes: int) -> tuple[str, ...]:
    """Fresh last class layers; everything else stays."""
    head = module.head
    for level, old in enumerate(head.cls_preds):
        head.cls_preds[level] = nn.Conv2d(old.in_channels, num_classes, 1)
    return tuple(f"head.cls_preds.{i}.{leaf}" for i in range(len(STRIDES)) for leaf in ("weight", "bias"))


register(
    Architecture(
        name="detrank/yolox",
        title="YOLOX",
        family="one_stage",
        input=PUBLISHED,
        build=build,
        face=face,
        has_background=False,
        norms=NORMS,
        notes=("pictures keep their shape and are padded with grey to a multiple of 32, not to a square",),
    )
)
