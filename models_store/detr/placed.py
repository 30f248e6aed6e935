"""DETR and Deformable DETR over any backbone: transformers' module with our body in the place of its own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from models_store.bodies.build import TimmBody, build_body
from models_store.detr.build import build
from models_store.detr.families import FAMILIES
from models_store.errors import Unusable

BODY_PREFIX = "model.backbone.model.body."
TAKES = ("c3", "c4", "c5")
LEVELS = 4
GROUPS = 32  # of the norms behind the projections
FOCAL_PRIOR = 0.01
# Built by transformers and thrown away at once, so as small as it gets.
STAND_IN = {
    "model_type": "resnet",
    "embedding_size": 2,
    "hidden_sizes": [2, 2, 2, 2],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}


class PlacedBody(nn.Module):
    """``forward(x)`` gives the maps that the detector takes, finest first; ``also`` names stages to remember."""

    def __init__(self, backbone: str, takes: tuple[str, ...]) -> None:
        super().__init__()
        self.body = build_body(backbone)
        self.stages = self.body.stages
        names = [stage.name for stage in self.stages]
        self.takes = tuple(name for name in takes if name in names) or (names[-1],)
        self.also: tuple[str, ...] = ()
        self.remembered: dict[str, Tensor] = {}

    @property
    def channels(self) -> list[int]:
        by_name = {stage.name: stage.channels for stage in self.stages}
        return [by_name[name] for name in self.takes]

    @property
    def multiple(self) -> int:
        """Sides of an input must be multiples of this: timm's transformers cut whole patches and windows."""
        return self.stages[-1].stride if isinstance(self.body, TimmBody) else 1

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.body.run(x, {*self.takes, *self.also})
        self.remembered = {name: maps[name] for name in self.also}
        return [maps[name] for name in self.takes]


def build_placed(
    model_type: str, backbone: str | None, options: dict[str, Any], num_classes: int
) -> nn.Module:
    """The published size (6 + 6 layers, 256 wide, 100 or 300 queries) around ``backbone``, freshly initialised.

    Options: ``config`` changes transformers' configuration, such as ``{"encoder_layers": 3}``; ``centred_sine`` and
    ``embedding`` as in ``build``.
    """
    if backbone is None:
        raise Unusable("missing_backbone", "this architecture needs a backbone, such as torchvision/resnet50")
    family = FAMILIES[model_type]
    deformable = family.memory == "levels"
    config = {
        "use_timm_backbone": False,
        "attention_dropout": 0.1,
        "activation_dropout": 0.1,
        **dict(options.get("config", {})),
        "backbone_config": STAND_IN,
    }
    if deformable:
        config["num_feature_levels"] = LEVELS
    kept: dict[str, Any] = {k: v for k, v in options.items() if k in ("centred_sine", "embedding")}
    shared = not config.get("with_box_refine")
    module = build(family, {"config": config, "shared_heads": shared, **kept}, num_classes)
    if deformable and module.config.d_model % GROUPS:
        raise Unusable(
            "bad_config",
            f"d_model {module.config.d_model} of a Deformable DETR has to be a multiple of {GROUPS}",
        )
    body = PlacedBody(backbone, TAKES if deformable else TAKES[-1:])
    module.model.backbone.model = body
    module.model.backbone.intermediate_channel_sizes = body.channels
    width = module.config.d_model
    if deformable:
        module.model.input_proj = _projections(body.channels, width)
    else:
        module.model.input_projection = nn.Conv2d(body.channels[-1], width, 1)
    _start(module, deformable)
    return module


def _projections(channels: list[int], width: int) -> nn.ModuleList:
    """One 1x1 convolution a map, then 3x3 with stride 2 until there are four levels (arXiv 2010.04159, A.2)."""
    made = [nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(GROUPS, width)) for c in channels]
    before = channels[-1]
    for _ in range(LEVELS - len(channels)):
        made.append(
            nn.Sequential(nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(GROUPS, width))
        )
        before = width
    for block in made:
        nn.init.xavier_uniform_(block[0].weight)
        nn.init.zeros_(block[0].bias)
    return nn.ModuleList(made)


@torch.no_grad()
def _start(module: nn.Module, deformable: bool) -> None:
    """As the published code starts: transformers' own values are a third as large, and its queries all alike.

    Matrices of the transformer by Glorot, queries standard normal (so that Deformable DETR's references lie all over the
    picture), heads as linear layers start; Deformable DETR's classes at 0.01 each and boxes at their references, small.
    """
    for name, part in module.model.named_modules():
        if not isinstance(part, nn.Linear) or not name.startswith(
            ("encoder.", "decoder.", "reference_points")
        ):
            continue
        last = name.rpartition(".")[2]
        if last in ("sampling_offsets", "attention_weights"):
            continue  # zero, around a grid: there already
        # Query, key and value are one matrix of three times the height there.
        gain = 2**-0.5 if last in ("q_proj", "k_proj", "v_proj") else 1.0
        nn.init.xavier_uniform_(part.weight, gain)
        nn.init.zeros_(part.bias)
    nn.init.normal_(module.model.query_position_embeddings.weight)
    for head in _heads(module):
        for part in head.modules():
            if isinstance(part, nn.Linear):
                part.reset_parameters()
    if not deformable:
        return
    for layer in module.class_embed:
        layer.bias.fill_(-math.log((1 - FOCAL_PRIOR) / FOCAL_PRIOR))
    for head in module.bbox_embed:
        nn.init.zeros_(head.layers[-1].weight)
        nn.init.zeros_(head.layers[-1].bias)
    module.bbox_embed[0].layers[-1].bias[2:] = -2.0


def _heads(module: nn.Module) -> list[nn.Module]:
    names = ("class_embed", "bbox_embed", "class_labels_classifier", "bbox_predictor")
    return [getattr(module, name) for name in names if hasattr(module, name)]
