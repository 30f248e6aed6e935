"""torchvision and timm classifiers as backbones: the head is left out, the maps are named by stride.

State dict keys stay those of the library, so a classifier's file loads by the same names.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from models_store.archs.outline import outline
from models_store.archs.stages import PROBE_PIXELS, Stage, find_stages, nearest_stride, walk
from models_store.errors import Unusable

# The rest of torchvision's classifiers are not one chain of maps (side heads, fixed token grids).
TORCHVISION_CHAINS = (
    "alexnet", "convnext", "densenet", "efficientnet", "mnasnet", "mobilenet", "regnet", "resnet", "resnext",
    "shufflenet", "squeezenet", "swin", "vgg", "wide_resnet",
)  # fmt: skip


class TorchvisionBody(nn.Module):
    """A torchvision classifier without its head.

    ``run(x (B,3,H,W), names)`` gives {name: (B,C,h,w)} and stops at the deepest asked stage.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        net = torchvision.models.get_model(name, weights=None, **_quick(name))
        kept = _trunk_children(net)
        for child, module in kept.items():
            self.add_module(child, module)
        self.channels_last = name.startswith("swin")
        self._steps = _steps(kept)
        if name.startswith("densenet"):
            self._steps.append(nn.ReLU())
        self.stages = find_stages(self._steps, channels_last=self.channels_last)

    def run(self, x: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        index = {s.name: s.index for s in self.stages if s.name in names}
        maps = walk(self._steps, x, set(index.values()), channels_last=self.channels_last)
        return {name: maps[i] for name, i in index.items()}


def _quick(name: str) -> dict[str, Any]:
    # googlenet-like scipy initialisation is not among the chains; nothing else needs an argument yet.
    return {"aux_logits": False} if name == "googlenet" else {}


def _trunk_children(net: nn.Module) -> dict[str, nn.Module]:
    dropped = {"fc", "classifier", "avgpool", "head", "heads", "flatten", "permute", "dropout"}
    return {name: child for name, child in net.named_children() if name not in dropped}


def _steps(children: dict[str, nn.Module]) -> list[nn.Module]:
    steps: list[nn.Module] = []
    for name, child in children.items():
        if name in {"features", "layers", "trunk_output"}:
            steps.extend(child.children())
        else:
            steps.append(child)
    return steps


class TimmBody(nn.Module):
    """A timm model without its head, through timm's own ``forward_intermediates``.

    A network whose maps all have one stride (a plain ViT) gives its last block's token grid, after the final
    norm, as the one stage.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = timm_model(name)
        self.channels_last = False
        count = len(self.model.feature_info)
        keep = self.model.prune_intermediate_layers(list(range(count)), prune_norm=False, prune_head=True)
        self.plain = len({info["reduction"] for info in self.model.feature_info}) == 1
        self.stages = self._find_stages(range(len(keep)))

    @torch.no_grad()
    def _find_stages(self, indices: range) -> tuple[Stage, ...]:
        training, pixels = self.training, PROBE_PIXELS
        patch = self.model.feature_info[-1]["reduction"]
        if pixels % patch:
            pixels = patch * 8
        self.eval()
        maps = self._maps(torch.zeros(1, 3, pixels, pixels), list(indices))
        self.train(training)
        last = {}
        for index, x in maps.items():
            last[nearest_stride(pixels, x.shape[-2])] = index
        stages = []
        for stride, index in sorted(last.items()):
            k = int(math.log2(stride))
            exact = self.model.feature_info[index]["reduction"] if self.plain else stride
            stages.append(Stage(f"c{k}", index, int(exact), maps[index].shape[1]))
        return tuple(s for s in stages if s.stride > 1)

    def _maps(self, x: Tensor, indices: list[int]) -> dict[int, Tensor]:
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
    for options in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}):
        with contextlib.suppress(TypeError):
            return timm.create_model(name, pretrained=False, **options)
    raise Unusable("unknown_architecture", f"timm cannot build {name!r} without further options")


def full_model(backbone: str) -> nn.Module:
    """The whole classifier, for its names and shapes only."""
    library, _, name = backbone.partition("/")

    return outline(
        lambda: timm_model(name) if library == "timm" else torchvision.models.get_model(name, weights=None)
    )


def build_body(backbone: str) -> nn.Module:
    """``torchvision/<name>`` or ``timm/<name>`` as a body with ``stages`` and ``run``. Raises Unusable."""
    library, _, name = backbone.partition("/")
    if library == "timm":
        return TimmBody(name)
    if (
        library == "torchvision"
        and name.startswith(TORCHVISION_CHAINS)
        and name in torchvision.models.list_models()
    ):
        return TorchvisionBody(name)
    raise Unusable(
        "unknown_architecture",
        f"{backbone!r} cannot be placed in a detector: name a torchvision classifier of the families "
        f"{', '.join(TORCHVISION_CHAINS)} or timm/<model>",
    )
