"""torchvision and timm classifiers as backbones: the head is left out, the maps are named by stride.

State dict keys stay those of the library, so a classifier's file loads by the same names.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Collection

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from models_store.bodies.outline import outline
from models_store.bodies.stages import PROBE_PIXELS, Stage, nearest_stride, stages_of, step_shapes, walk
from models_store.bodies.wide_resnets import build_wide
from models_store.errors import Unusable, out_of_memory

# The rest of torchvision's classifiers are not one chain of maps (side heads, fixed token grids).
TORCHVISION_CHAINS = (
    "alexnet",
    "convnext",
    "densenet",
    "efficientnet",
    "mnasnet",
    "mobilenet",
    "regnet",
    "resnet",
    "resnext",
    "shufflenet",
    "squeezenet",
    "swin",
    "vgg",
    "wide_resnet",
)

# Children whose own children are the steps.
CONTAINERS = ("features", "layers", "trunk_output")
# What lets a family take any input size, tried in this order.
TIMM_OPTIONS: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


class TorchvisionBody(nn.Module):
    """A torchvision classifier without its head.

    ``run(x (B,3,H,W), names)`` gives {name: (B,C,h,w)} and stops at the deepest asked stage.
    """

    def __init__(self, name: str, net: nn.Module | None = None) -> None:
        super().__init__()
        net = torchvision.models.get_model(name, weights=None) if net is None else net
        for child, module in _trunk_children(net).items():
            self.add_module(child, module)
        self.channels_last = name.startswith("swin")
        self.last_relu = name.startswith("densenet")
        self._look()

    def _look(self) -> None:
        steps = self._steps()
        self.shapes = step_shapes(steps, channels_last=self.channels_last)
        self.stages = stages_of(steps, self.shapes)

    def index_of(self, name: str) -> int:
        """Of a stage, or of step i by ``#i``. Raises KeyError."""
        if name.startswith("#") and name[1:].isdigit() and int(name[1:]) in self.shapes:
            return int(name[1:])
        return {stage.name: stage.index for stage in self.stages}[name]

    def cut_behind(self, index: int) -> None:
        """Throw away all steps behind this one, as torchvision's own getter of layers does."""
        self.last_relu = self.last_relu and index == len(self._steps()) - 1
        position = 0
        for name, child in list(self.named_children()):
            inside = list(child.named_children()) if name in CONTAINERS else [(name, child)]
            kept = inside[: max(0, index + 1 - position)]
            position += len(inside)
            if not kept:
                delattr(self, name)
            elif len(kept) < len(inside):
                setattr(self, name, nn.Sequential(OrderedDict(kept)))
        self._look()

    def steps(self) -> list[tuple[str, nn.Module]]:
        """(name in the state dict, module) of each step; the last activation of a DenseNet has no name."""
        found: list[tuple[str, nn.Module]] = []
        for name, child in self.named_children():
            inside = child.named_children() if name in CONTAINERS else None
            found += [(f"{name}.{n}", m) for n, m in inside] if inside else [(name, child)]
        return found + ([("", nn.ReLU())] if self.last_relu else [])

    @property
    def strided_steps(self) -> list[int]:
        """Where torchvision's own pyramids over MobileNets read: every block that halves the map, and the last."""
        steps = self._steps()
        return [i for i, step in enumerate(steps) if getattr(step, "_is_cn", False)] + [len(steps) - 1]

    def _steps(self) -> list[nn.Module]:
        """Read anew each time: norms may have been replaced since."""
        return [module for _, module in self.steps()]

    def run(self, x: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        index = {name: self.index_of(name) for name in names}
        maps = walk(self._steps(), x, set(index.values()), channels_last=self.channels_last)
        return {name: maps[i] for name, i in index.items()}


def _trunk_children(net: nn.Module) -> dict[str, nn.Module]:
    dropped = {"fc", "classifier", "avgpool", "head", "heads", "flatten", "permute", "dropout"}
    return {name: child for name, child in net.named_children() if name not in dropped}


class TimmBody(nn.Module):
    """A timm model without its head, through timm's own ``forward_intermediates``.

    A network whose maps all have one stride (a plain ViT) gives its last block's token grid, after the final
    norm, as the one stage. Where its patch is no power of two (14), pixels are first resized by patch/16, so that
    the grid has stride 16: pyramids and ROI pooling count in powers of two.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = timm_model(name)
        count = len(self.model.feature_info)
        keep = self.model.prune_intermediate_layers(list(range(count)), prune_norm=False, prune_head=True)
        strides = {info["reduction"] for info in self.model.feature_info}
        self.plain = len(strides) == 1
        self.patch = int(max(strides)) if self.plain else 1
        self.stride = nearest_stride(self.patch, 1)
        self.stages = self._find_stages(range(len(keep)))

    @torch.no_grad()
    def _find_stages(self, indices: range) -> tuple[Stage, ...]:
        training = self.training
        self.eval()
        maps = self._maps(torch.zeros(1, 3, PROBE_PIXELS, 2 * PROBE_PIXELS), list(indices))
        self.train(training)
        if any(abs(x.shape[-1] - 2 * x.shape[-2]) > 2 for x in maps.values()):
            raise ValueError("its maps do not grow with the picture")
        last = {nearest_stride(PROBE_PIXELS, x.shape[-2]): index for index, x in maps.items()}
        return tuple(
            Stage(f"c{int(math.log2(stride))}", index, stride, maps[index].shape[1])
            for stride, index in sorted(last.items())
            if stride > 1
        )

    def _maps(self, x: Tensor, indices: list[int]) -> dict[int, Tensor]:
        if self.patch != self.stride and self.plain:
            size = [side * self.patch // self.stride for side in x.shape[-2:]]
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        outputs = self.model.forward_intermediates(
            x, indices=indices, norm=self.plain, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        return dict(zip(indices, outputs, strict=True))

    def run(self, x: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        index = {s.name: s.index for s in self.stages if s.name in names}
        maps = self._maps(x, sorted(set(index.values()))) if index else {}
        return {name: maps[i] for name, i in index.items()}


def timm_model(name: str) -> nn.Module:
    """The timm model at any input size where the family allows it. Raises Unusable for an unknown name."""
    if not timm.is_model(name):
        raise Unusable("unknown_architecture", f"timm has no model {name!r}: `timm.list_models()` lists them")
    for options in TIMM_OPTIONS:
        with contextlib.suppress(TypeError):
            return timm.create_model(name, pretrained=False, **options)
    raise Unusable("unknown_architecture", f"timm cannot build {name!r} without further options")


def full_model(backbone: str) -> nn.Module:
    """The whole classifier, for its names and shapes only."""
    library, _, name = backbone.partition("/")

    def build() -> nn.Module:
        if library == "timm":
            return timm_model(name)
        return build_wide(name) if library == "detrank" else torchvision.models.get_model(name, weights=None)

    return outline(build)


def build_body(backbone: str) -> nn.Module:
    """``torchvision/<name>``, ``timm/<name>`` or ``detrank/<name>`` as a body with ``stages`` and ``run``. Raises Unusable."""
    library, _, name = backbone.partition("/")
    try:
        if library == "timm":
            return TimmBody(name)
        if library == "detrank":
            return TorchvisionBody(name, build_wide(name))
        if (
            library == "torchvision"
            and name.startswith(TORCHVISION_CHAINS)
            and name in torchvision.models.list_models()
        ):
            return TorchvisionBody(name)
    except (
        AssertionError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        if out_of_memory(error):
            raise
        raise Unusable(
            "unknown_architecture",
            f"{backbone} cannot be placed in a detector: it gives no maps at another input size than its own "
            f"({str(error)[:200]})",
        ) from None
    raise Unusable(
        "unknown_architecture",
        f"{backbone!r} cannot be placed in a detector: name a torchvision classifier of the families "
        f"{', '.join(TORCHVISION_CHAINS)} or timm/<model>",
    )
