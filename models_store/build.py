"""A manifest's module: built, filled with its weights and with seeded values where it has none."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from models_store.archs import ARCHITECTURES, Architecture, BuildSpec
from models_store.archs.face import Face
from models_store.archs.initialise import initialise
from models_store.bodies.outline import undrawn
from models_store.errors import Unusable, some
from models_store.manifest import Input, Layer

# A placed backbone has no classes of its own; its head waits for the target's list.
PLACEHOLDER_CLASSES = 1
COUNTER = "num_batches_tracked"


def architecture_of(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise Unusable(
            "unknown_architecture",
            f"{name!r} is no architecture of this version: {', '.join(sorted(ARCHITECTURES))}",
        )
    return ARCHITECTURES[name]


def build_module(
    architecture: Architecture,
    *,
    num_classes: int | None,
    input: Input,
    backbone: str | None,
    options: Mapping[str, object],
    seed: int = 0,
    filled_later: bool = False,
) -> nn.Module:
    """The architecture's module with the library's own initial weights, seeded, in evaluation mode.

    ``filled_later``: they are not drawn, since whoever asks puts others in place of every one.
    """
    spec = BuildSpec(num_classes or PLACEHOLDER_CLASSES, input, backbone, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build = partial(architecture.build, spec)
        return (undrawn(build) if filled_later else build()).eval()


def fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    initialised: Collection[str],
    seed: int,
    *,
    focal: bool = False,
    as_built: bool = False,
) -> None:
    """Put ``tensors`` into ``module`` (floats cast to its dtype) and seeded values under ``initialised``.

    ``as_built``: these keep the values that ``build_module`` gave them, which is seeded too.

    Every key of the module must be in exactly one of the two, norm counters excepted. Raises Unusable:
    ``missing_keys``, ``unmapped_keys``, ``shape_mismatch``.
    """
    own = module.state_dict()
    required = {key for key in own if not key.endswith(COUNTER)}
    given = {key for key in tensors if not key.endswith(COUNTER)}
    if missing := required - given - set(initialised):
        raise Unusable(
            "missing_keys",
            f"{len(missing)} of {len(required)} tensors are missing: {some(missing)}",
            [{"key": key, "message": "missing"} for key in sorted(missing)],
        )
    if unknown := given - required:
        raise Unusable(
            "unmapped_keys",
            f"{len(unknown)} tensors have no place in the architecture: {some(unknown)}",
            [{"key": key, "message": "no place"} for key in sorted(unknown)],
        )
    wrong = [k for k in sorted(given) if tensors[k].shape != own[k].shape]
    if wrong:
        raise Unusable(
            "shape_mismatch",
            f"{len(wrong)} tensors have another shape than the architecture: {some(wrong)}",
            [
                {"key": k, "message": f"{list(tensors[k].shape)} instead of {list(own[k].shape)}"}
                for k in wrong
            ],
        )
    with torch.no_grad():
        for key in given:
            own[key].copy_(tensors[key])
    if not as_built:
        initialise(module, initialised, seed, focal=focal)


def layers_of(face: Face, initialised: Collection[str]) -> tuple[Layer, ...]:
    """Every layer that the face offers, with whether learned weights stand before it."""
    fresh_neck = any(key.startswith(("backbone.fpn.", "backbone.neck.")) for key in initialised)
    fresh_box_head = fresh_neck or any(
        key.startswith(("roi_heads.box_head.", "head.classification_head.conv."))
        and not key.startswith(face.identity_at_first)
        for key in initialised
    )
    layers = [Layer(f"backbone.{s.name}", s.stride, s.channels, "map", True) for s in face.stages]
    if face.neck is not None:
        for name, stride, channels in zip(
            face.neck.names, face.neck.strides, face.neck.channels, strict=True
        ):
            layers.append(Layer(name, stride, channels, "map", not fresh_neck))
        if face.roi_levels:
            channels = face.neck.channels[face.neck.names.index(face.roi_levels[0])]
            layers.append(Layer("neck.roi", None, channels, "vector", not fresh_neck))
    if face.box_head is not None or face.tower is not None:
        layers.append(
            Layer("head.penultimate", None, face.penultimate_channels, "vector", not fresh_box_head)
        )
    return tuple(layers)
