"""What is known about a converted checkpoint. No torch here: the service reads manifests too."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

SCHEMA = 1
WEIGHTS_FILE = "weights.safetensors"
MANIFEST_FILE = "manifest.json"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Layer:
    """A named place where features are read.

    ``stride`` in input pixels per cell (None for a vector), ``trained`` False where the weights in front of
    it were initialised here and not learned.
    """

    name: str
    stride: int | None
    channels: int
    kind: Literal["map", "vector"]
    trained: bool


@dataclass(frozen=True)
class Input:
    """How a picture becomes the network's input; pixel values are first scaled to [0, 1], RGB.

    ``min_size``/``max_size``: shorter and longer side in pixels as torchvision's detection transform uses
    them; ``fixed_size`` (height, width) squashes to one size instead. ``divisor``: the batch is padded right
    and bottom to a multiple of it.
    """

    min_size: int = 800
    max_size: int = 1333
    fixed_size: tuple[int, int] | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    divisor: int = 32


@dataclass(frozen=True)
class Manifest:
    """Architecture, classes, input and origin of one converted checkpoint.

    ``num_classes`` counts categories without background; ``has_background`` says that output 0 of the head
    is reserved. ``format`` is what the file was. ``dropped_keys`` were in the file and are not used,
    ``initialised_keys`` are used and were not in the file; ``reasons`` says why of both, as
    {"dropped" | "initialised": [{"why": sentence, "keys": [...]}]}. ``warnings``: what the file could not tell and may be
    read wrongly, with how to say it; ranking repeats them.
    """

    architecture: str
    format: str
    kind: Literal["detector", "backbone", "open_vocabulary"]
    input: Input
    layers: tuple[Layer, ...]
    parameters: int
    source: dict[str, Any]
    weights_sha256: str
    backbone: str | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    has_background: bool = True
    dropped_keys: tuple[str, ...] = ()
    initialised_keys: tuple[str, ...] = ()
    initialisation_seed: int = 0
    reasons: dict[str, Any] = field(default_factory=dict)
    licence: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """A JSON-safe dictionary; ``from_json`` turns it back."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, value: str | bytes | Mapping[str, Any]) -> Manifest:
        """From a dictionary or JSON text. Raises ValueError for another schema."""
        raw = dict(json.loads(value)) if isinstance(value, str | bytes) else dict(value)
        if raw.get("schema") != SCHEMA:
            raise ValueError(
                f"manifest schema {raw.get('schema')!r}, this version reads {SCHEMA}: convert the checkpoint again"
            )
        raw["input"] = _input(raw["input"])
        raw["layers"] = tuple(Layer(**layer) for layer in raw["layers"])
        for key in ("dropped_keys", "initialised_keys", "notes"):
            raw[key] = tuple(raw[key])
        raw["warnings"] = tuple(raw.get("warnings", ()))
        if raw["class_names"] is not None:
            raw["class_names"] = tuple(raw["class_names"])
        return cls(**raw)

    def write(self, folder: Path) -> Path:
        """Write ``manifest.json`` into ``folder`` by rename."""
        path = folder / MANIFEST_FILE
        beside = folder / (MANIFEST_FILE + ".partial")
        beside.write_text(json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(beside, path)
        return path

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        return cls.from_json((Path(folder) / MANIFEST_FILE).read_text(encoding="utf-8"))

    def but(self, **changes: Any) -> Manifest:
        return replace(self, **changes)


def _by_channel(raw: Iterable[Any]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in raw)
    return red, green, blue


def _input(raw: Mapping[str, Any]) -> Input:
    fixed = raw.get("fixed_size")
    return Input(
        min_size=int(raw["min_size"]),
        max_size=int(raw["max_size"]),
        fixed_size=(int(fixed[0]), int(fixed[1])) if fixed else None,
        mean=_by_channel(raw["mean"]),
        std=_by_channel(raw["std"]),
        divisor=int(raw["divisor"]),
    )
