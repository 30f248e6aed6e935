"""``detrank/retinanet``: any backbone placed in torchvision's RetinaNet, P3 to P7 (arXiv 1708.02002)."""

from __future__ import annotations

from functools import partial

from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from models_store.archs.base import Architecture, BuildSpec, register
from models_store.archs.face import Face
from models_store.archs.fasterrcnn_fpn import ASPECT_RATIOS, needed_backbone
from models_store.archs.norms import KINDS, layer_of, norm_of
from models_store.archs.pyramid import OUT_CHANNELS, PyramidBackbone
from models_store.archs.source import best_anchor, dense_source, foreground_sigmoids
from models_store.archs.stages import PROBE_PIXELS
from models_store.archs.torchvision_dense import replace_logits
from models_store.manifest import Input

ANCHOR_PER_STRIDE = 4
OCTAVES = 3


def build(spec: BuildSpec) -> nn.Module:
    norm = norm_of(spec.options, None)
    extra = LastLevelP6P7(OUT_CHANNELS, OUT_CHANNELS)
    backbone = PyramidBackbone(needed_backbone(spec), norm=norm, finest="c3", extra=extra)
    sizes = tuple(
        tuple(
            int(ANCHOR_PER_STRIDE * backbone.first_stride * 2 ** (i + octave / OCTAVES))
            for octave in range(OCTAVES)
        )
        for i in range(len(backbone.names))
    )
    anchors = AnchorGenerator(sizes, (ASPECT_RATIOS,) * len(sizes))
    # Batch norms in a head that all levels share would mix their statistics; groups do not.
    head_norm = layer_of("gn") if norm == "gn" else None
    module = RetinaNet(
        backbone,
        num_classes=spec.num_classes + 1,
        min_size=spec.input.min_size,
        max_size=spec.input.max_size,
        image_mean=list(spec.input.mean),
        image_std=list(spec.input.std),
        anchor_generator=anchors,
        head=RetinaNetHead(
            OUT_CHANNELS, OCTAVES * len(ASPECT_RATIOS), spec.num_classes + 1, norm_layer=head_norm
        ),
        size_divisible=backbone.divisor,
    )
    module.norm_kind = norm
    return module


def face(module: nn.Module) -> Face:
    backbone = module.backbone
    neck = backbone.probed(max(PROBE_PIXELS, 4 * backbone.divisor))
    return Face(
        body=backbone.body.run,
        stages=backbone.body.stages,
        neck=neck,
        roi_levels=neck.names[: backbone.levels],
        tower=module.head.classification_head.conv,
        penultimate_channels=module.head.classification_head.cls_logits.in_channels,
        replace_head=partial(replace_logits, module),
        source=dense_source(module, neck.names, best_anchor, foreground_sigmoids),
    )


register(
    Architecture(
        name="detrank/retinanet",
        title="RetinaNet over any backbone",
        family="one_stage",
        input=Input(),
        build=build,
        face=face,
        places_backbone=True,
        norms=KINDS,
    )
)
