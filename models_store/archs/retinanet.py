"""``detrank/retinanet`` and ``detrank/fcos``: any backbone in torchvision's RetinaNet (arXiv 1708.02002) or FCOS (1904.01355)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from models_store.archs.anchors import chosen
from models_store.archs.base import Architecture, BuildSpec, register
from models_store.archs.common import reserved
from models_store.archs.face import Face
from models_store.archs.fasterrcnn_fpn import ASPECT_RATIOS, SINGLE_SIZES, needed_backbone
from models_store.archs.layout import layout_of
from models_store.archs.pyramid import OUT_CHANNELS, PyramidBackbone
from models_store.archs.source import Match, best_anchor, dense_source, foreground_sigmoids, nearest_point
from models_store.archs.torchvision_dense import replace_logits
from models_store.bodies.norms import KINDS, layer_of, norm_of
from models_store.bodies.stages import PROBE_PIXELS
from models_store.manifest import Input

ANCHOR_PER_STRIDE = 4
OCTAVES = 3


def build(spec: BuildSpec) -> nn.Module:
    """Options: ``norm``, ``norm_eps``, ``pyramid``, ``anchors``, ``labels_from``, ``neck_channels``; ``head_norm`` gn of the
    towers (as torchvision's second recipe has), which come with ``norm`` gn anyway."""
    norm = norm_of(spec.options, None)
    backbone = dense_backbone(spec, norm)
    own = AnchorGenerator(sizes_of(backbone), (ASPECT_RATIOS,) * len(backbone.names))
    anchors = chosen(spec.options, own)
    # Batch norms in a head that all levels share would mix their statistics; groups do not.
    head_norm = layer_of("gn") if "gn" in (norm, spec.options.get("head_norm")) else None
    outputs = spec.num_classes + reserved(spec.options)
    count = anchors.num_anchors_per_location()[0]
    module = RetinaNet(
        backbone,
        num_classes=outputs,
        **input_arguments(spec, backbone),
        anchor_generator=anchors,
        head=RetinaNetHead(backbone.out_channels, count, outputs, norm_layer=head_norm),
    )
    module.norm_kind, module.reserved = norm, reserved(spec.options)
    return module


def build_fcos(spec: BuildSpec) -> nn.Module:
    """Options: ``norm``, ``norm_eps``, ``pyramid``, ``labels_from``, ``neck_channels``. One point a cell, as published."""
    norm = norm_of(spec.options, None)
    backbone = dense_backbone(spec, norm)
    sizes = tuple((backbone.first_stride * 2**i,) for i in range(len(backbone.names)))
    outputs = spec.num_classes + reserved(spec.options)
    module = FCOS(
        backbone,
        num_classes=outputs,
        **input_arguments(spec, backbone),
        anchor_generator=chosen(spec.options, AnchorGenerator(sizes, ((1.0,),) * len(sizes))),
    )
    module.norm_kind, module.reserved = norm, reserved(spec.options)
    return module


def dense_backbone(spec: BuildSpec, norm: str | None) -> PyramidBackbone:
    """P3 to P7, where the option ``pyramid`` does not say otherwise."""
    channels = int(spec.options.get("neck_channels", OUT_CHANNELS))
    eps = spec.options.get("norm_eps")
    return PyramidBackbone(
        needed_backbone(spec),
        norm=norm,
        finest="c3",
        extra=LastLevelP6P7(channels, channels),
        channels=channels,
        layout=layout_of(spec.options),
        norm_eps=None if eps is None else float(eps),
    )


def sizes_of(backbone: PyramidBackbone) -> tuple[tuple[int, ...], ...]:
    if backbone.single:
        return (SINGLE_SIZES,)
    return tuple(
        tuple(
            int(ANCHOR_PER_STRIDE * backbone.first_stride * 2 ** (i + octave / OCTAVES))
            for octave in range(OCTAVES)
        )
        for i in range(len(backbone.names))
    )


def input_arguments(spec: BuildSpec, backbone: PyramidBackbone) -> dict[str, Any]:
    return {
        "min_size": spec.input.min_size,
        "max_size": spec.input.max_size,
        "image_mean": list(spec.input.mean),
        "image_std": list(spec.input.std),
        "size_divisible": backbone.divisor,
    }


def face(match: Match, module: nn.Module) -> Face:
    backbone = module.backbone
    neck = None if backbone.single else backbone.probed(max(PROBE_PIXELS, 4 * backbone.divisor))
    names = neck.names if neck else (f"backbone.{backbone.single}",)
    return Face(
        body=backbone.body.run,
        stages=backbone.body.stages,
        neck=neck,
        roi_levels=names[: backbone.levels],
        tower=module.head.classification_head.conv,
        penultimate_channels=module.head.classification_head.cls_logits.in_channels,
        replace_head=partial(replace_logits, module),
        source=dense_source(module, names, match, partial(foreground_sigmoids, module)),
    )


for _name, _title, _build, _match in (
    ("retinanet", "RetinaNet over any backbone", build, best_anchor),
    ("fcos", "FCOS over any backbone", build_fcos, nearest_point),
):
    register(
        Architecture(
            name=f"detrank/{_name}",
            title=_title,
            family="one_stage",
            input=Input(),
            build=_build,
            face=partial(face, _match),
            places_backbone=True,
            norms=KINDS,
        )
    )
