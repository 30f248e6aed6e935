"""transformers' query-based detectors, one architecture for each model type."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from models_store.archs.base import Architecture, BuildSpec, register
from models_store.detr.build import build
from models_store.detr.detector import DetrDetector
from models_store.detr.families import FAMILIES, Family, architecture_name
from models_store.detr.maps import Maps, size_multiple
from models_store.detr.placed import BODY_PREFIX, build_placed
from models_store.errors import Unusable
from models_store.manifest import Input, Layer, Manifest

CHECK_PIXELS = (96, 128)
# Two-stage detectors choose their queries among the locations of the maps: 1700 here.
CHECK_PIXELS_TWO_STAGE = (256, 320)
PUBLISHED = Input(divisor=1)
UNSCALED = Input(fixed_size=(640, 640), divisor=1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
INPUTS = {
    "rt_detr": UNSCALED,
    "rt_detr_v2": UNSCALED,
    "d_fine": UNSCALED,
    "deimv2": UNSCALED,
    "rf_detr": Input(fixed_size=(560, 560), divisor=1),
    "lw_detr": Input(fixed_size=(640, 640), divisor=1),
}


def build_module(family: Family, spec: BuildSpec) -> nn.Module:
    if "config" not in spec.options:
        raise Unusable(
            "missing_config",
            f"{family.title} is built from its config.json: send the whole transformers folder",
        )
    return build(family, spec.options, spec.num_classes)


def _build_placed(model_type: str, spec: BuildSpec) -> nn.Module:
    return build_placed(model_type, spec.backbone, dict(spec.options), spec.num_classes)


@torch.no_grad()
def layers(family: Family, module: nn.Module, spec: Input, initialised: tuple[str, ...]) -> tuple[Layer, ...]:
    """The layers, found by running the whole module once; Unusable where it does not run or gives no finite number."""
    two_stage = bool(getattr(module.config, "two_stage", False))
    height, width = spec.fixed_size or (CHECK_PIXELS_TWO_STAGE if two_stage else CHECK_PIXELS)
    multiple = size_multiple(module, family)
    height, width = (max(multiple, side // multiple * multiple) for side in (height, width))
    try:
        pixels = torch.full((1, 3, height, width), 0.1)
        maps = Maps(module, family)
        found = maps.layers(pixels, trained=not initialised)
        values = maps.run(pixels, ["decoder.queries"])["decoder.queries"]
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError, AttributeError) as error:
        raise Unusable("forward_failed", f"the model loads but does not run: {str(error)[:300]}") from None
    if not bool(torch.isfinite(values).all()):
        raise Unusable("not_finite", "the model's output on a grey picture is not finite")
    return found


def wrap(family: Family, manifest: Manifest, module: nn.Module) -> Any:
    return DetrDetector(manifest, module, family)


for _family in FAMILIES.values():
    register(
        Architecture(
            name=architecture_name(_family.model_type),
            title=_family.title,
            family="detr",
            input=INPUTS.get(_family.model_type, PUBLISHED),
            build=partial(build_module, _family),
            layers=partial(layers, _family),
            wrap=partial(wrap, _family),
            has_background=False,
        )
    )

for _model_type in ("detr", "deformable_detr"):
    _family = FAMILIES[_model_type]
    register(
        Architecture(
            name=f"detrank/{_model_type}",
            title=f"{_family.title} over any backbone",
            family="detr",
            input=PUBLISHED,
            build=partial(_build_placed, _model_type),
            layers=partial(layers, _family),
            wrap=partial(wrap, _family),
            has_background=False,
            places_backbone=True,
            body_prefix=BODY_PREFIX,
            notes=("its encoder, decoder and heads are untrained",),
        )
    )
