"""What torchvision's pyramid detectors share: building with our input, norms as trained, and walking the body."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from models_store.archs.anchors import set_anchors
from models_store.archs.base import BuildSpec
from models_store.archs.necks import Neck, TopDown, probe_neck
from models_store.bodies.stages import Stage, find_stages, walk
from models_store.bodies.strides import stride_in_1x1
from models_store.manifest import Input


def build_torchvision(builder: str, spec: BuildSpec, **arguments: Any) -> nn.Module:
    """torchvision's builder with fresh weights and our input.

    Options: ``frozen_norm`` (the body's norms are fixed, as in all published v1 weights),
    ``frozen_bn_eps`` (their epsilon), ``stride_in_1x1``, ``anchors``, and ``labels_from`` of dense heads.
    """
    outputs = spec.num_classes + reserved(spec.options)
    module = get_model(builder, weights=None, weights_backbone=None, num_classes=outputs, **arguments)
    module.reserved = reserved(spec.options)
    apply_input(module, spec.input)
    if spec.options.get("frozen_norm"):
        eps = spec.options.get("frozen_bn_eps")
        freeze_norms(module.backbone.body, None if eps is None else float(eps))
    if spec.options.get("stride_in_1x1"):
        stride_in_1x1(module.backbone.body)
    set_anchors(module, spec.options)
    return module


def reserved(options: Mapping[str, Any]) -> int:
    """1 where output 0 of a head is background or unused, 0 where a dense head was trained with labels from 0."""
    return int(options.get("labels_from", 1))


def apply_input(module: nn.Module, wanted: Input) -> None:
    """Put ``wanted`` into torchvision's detection transform."""
    transform = module.transform
    transform.min_size, transform.max_size = (wanted.min_size,), wanted.max_size
    transform.image_mean, transform.image_std = list(wanted.mean), list(wanted.std)
    if wanted.fixed_size is not None:
        # torchvision keeps it as (width, height).
        transform.fixed_size = (wanted.fixed_size[1], wanted.fixed_size[0])


def freeze_norms(module: nn.Module, eps: float | None = None) -> None:
    """Replace every batch norm by torchvision's frozen one, same key names without the counter."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, child.eps if eps is None else eps)
            setattr(module, name, frozen.to(next(iter(child.buffers())).device))
        else:
            freeze_norms(child, eps)


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


def walked_pyramid(backbone: nn.Module) -> tuple[BodyWalk, Neck]:
    """Body and neck of torchvision's ``BackboneWithFPN``."""
    walker = BodyWalk(backbone.body)
    down = TopDown(backbone.fpn, walker.takes)
    beyond = 1 if isinstance(backbone.fpn.extra_blocks, LastLevelMaxPool) else 2
    neck = probe_neck(
        walker.run, down.takes, down.run, down.needs, backbone, count=down.levels + beyond, last=down.last
    )
    return walker, neck
