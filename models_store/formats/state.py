"""One flat state dict with what lay beside it, and what a format says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from models_store.formats.normalisation import Pixels

COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class StateDict:
    """``ordered``: the keys stand in the order of the module that was saved (torch files, not safetensors).

    ``arguments``: plain values of the training arguments beside the weights. ``config``, ``preprocessor``: the JSON
    files of a transformers folder; ``tokenizer``: the files of its vocabulary by name, as they are.
    ``class_names``: what lies beside the weights, by the trainer's own index; ``pixels``: how pictures are normalised, where
    that does.
    """

    tensors: dict[str, Tensor]
    ordered: bool
    metadata: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    preprocessor: Mapping[str, Any] | None = None
    tokenizer: Mapping[str, bytes] = field(default_factory=dict)
    class_names: Mapping[int, str] | None = None
    pixels: Pixels | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: tuple(t.shape) for key, t in self.tensors.items() if not key.endswith(COUNTER)}


@dataclass(frozen=True)
class Recognised:
    """A state dict brought to the canonical names of ``architecture`` (of ``backbone``'s body for a backbone).

    ``num_classes`` without background. ``input`` overrides fields of the architecture's Input. ``warnings``: what the
    file could not tell, which ranking repeats. ``open_input``: why mean and std must be asked for, where they must.
    ``open_options``: why an option must be asked for; a value of the right size stands there meanwhile. ``channel_order``:
    where the file says it.
    """

    format: str
    kind: Literal["detector", "backbone"]
    architecture: str
    tensors: dict[str, Tensor]
    backbone: str | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    dropped: tuple[str, ...] = ()
    input: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    open_input: str = ""
    open_options: Mapping[str, str] = field(default_factory=dict)
    channel_order: str | None = None
