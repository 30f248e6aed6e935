"""What an architecture is: a name, its input, how to build it, and the face that its modules get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from models_store.archs.face import Face
from models_store.manifest import Input, Layer, Manifest


@dataclass(frozen=True)
class BuildSpec:
    """``num_classes`` counts categories without background; ``backbone`` only where the architecture takes one."""

    num_classes: int
    input: Input
    backbone: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Architecture:
    """One buildable detector.

    ``build`` returns the module with fresh weights, ``face`` wraps it for reading features.
    ``places_backbone``: it takes any backbone. ``builder``: torchvision's name, where there is one.
    ``norms``: the values of its option ``norm``.
    Instead of ``face``, a family with an interface of its own gives ``layers(module, input, initialised)``, which
    also runs the module once, and ``wrap(manifest, module)``, its Detector; what it does not find in a file keeps the
    values of its own construction. ``body_prefix``: where a placed backbone's tensors are.
    """

    name: str
    title: str
    family: Literal["two_stage", "one_stage", "ssd", "detr"]
    input: Input
    build: Callable[[BuildSpec], nn.Module]
    face: Callable[[nn.Module], Face] | None = None
    layers: Callable[[nn.Module, Input, tuple[str, ...]], tuple[Layer, ...]] | None = None
    wrap: Callable[[Manifest, nn.Module], Any] | None = None
    has_background: bool = True
    body_prefix: str = "backbone.body."
    places_backbone: bool = False
    builder: str | None = None
    norms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def face_of(self, module: nn.Module) -> Face:
        if self.face is None:
            raise TypeError(f"{self.name} has an interface of its own")
        return self.face(module)


ARCHITECTURES: dict[str, Architecture] = {}


def register(architecture: Architecture) -> Architecture:
    if architecture.name in ARCHITECTURES:
        raise ValueError(f"architecture {architecture.name!r} is registered twice")
    ARCHITECTURES[architecture.name] = architecture
    return architecture
