"""From whatever a file unpickled to, to one flat state dict; and what a format says about it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from models_store.errors import Unusable, some

# In the order of preference: the plain weights before their running average.
WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "teacher",
            "student", "model_ema", "state_dict_ema", "ema", "module")  # fmt: skip
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
MAX_NESTING = 4
COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class StateDict:
    """``ordered``: the keys stand in the order of the module that was saved (torch files, not safetensors).

    ``arguments``: plain values of the training arguments beside the weights. ``config``, ``preprocessor``: the JSON
    files of a transformers folder.
    """

    tensors: dict[str, Tensor]
    ordered: bool
    metadata: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    preprocessor: Mapping[str, Any] | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: tuple(t.shape) for key, t in self.tensors.items() if not key.endswith(COUNTER)}


@dataclass(frozen=True)
class Recognised:
    """A state dict brought to the canonical names of ``architecture`` (of ``backbone``'s body for a backbone).

    ``num_classes`` without background. ``input`` overrides fields of the architecture's Input.
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


def unwrap(obj: object, *, ordered: bool, metadata: Mapping[str, str] | None = None) -> StateDict:
    """The flat state dict inside ``obj``, a file's top-level object. Raises Unusable ``not_a_state_dict``."""
    path: list[str] = []
    dropped: list[str] = []
    notes: list[str] = []
    arguments = _arguments(obj)
    while isinstance(obj, Mapping) and not _is_flat(obj):
        inner = [k for k in WRAPPERS if isinstance(obj.get(k), Mapping) and obj[k]]
        if not inner or len(path) >= MAX_NESTING:
            raise Unusable(
                "not_a_state_dict",
                f"no state dict under {'.'.join(path) or 'the top level'}, which holds "
                f"{some([str(k)[:60] for k in obj])}: save torch.save(model.state_dict(), path)",
            )
        if len(inner) > 1:
            notes.append(f"the file holds {', '.join(inner)}; {inner[0]} was taken")
        dropped += [".".join([*path, str(k)[:200]]) for k in obj if k != inner[0]]
        path.append(inner[0])
        obj = obj[inner[0]]
    if not isinstance(obj, Mapping):
        raise Unusable(
            "not_a_state_dict",
            f"the file holds a {type(obj).__name__}, not a state dict: save torch.save(model.state_dict(), path)",
        )
    tensors = {str(k): v for k, v in obj.items() if isinstance(v, Tensor)}
    dropped += [str(k)[:200] for k, v in obj.items() if not isinstance(v, Tensor)]
    for prefix in WRAPPER_PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
            notes.append(f"the prefix {prefix!r} was stripped from every key")
    return StateDict(tensors, ordered, dict(metadata or {}), tuple(dropped), tuple(notes), arguments)


def _arguments(obj: object) -> dict[str, Any]:
    """Numbers, texts and flags of an ``args`` Namespace beside the weights."""
    found = obj.get("args") if isinstance(obj, Mapping) else None
    if not isinstance(found, argparse.Namespace):
        return {}
    return {str(k): v for k, v in vars(found).items() if v is None or isinstance(v, bool | int | float | str)}


def _is_flat(obj: Mapping[Any, Any]) -> bool:
    # A counter or two beside the weights is common, a nested mapping is not.
    tensors = sum(isinstance(v, Tensor) for v in obj.values())
    return tensors > 0 and tensors >= len(obj) / 2


def variants(state: StateDict) -> Iterator[StateDict]:
    """The state dict, then with its one common leading name stripped, as long as there is one."""
    yield state
    for _ in range(3):
        first = {key.split(".", 1)[0] for key in state.tensors if "." in key}
        if len(first) != 1 or not all("." in key for key in state.tensors):
            return
        prefix = first.pop() + "."
        if re.fullmatch(r"\d+\.", prefix):
            return
        state = replace(
            state,
            tensors={key.removeprefix(prefix): value for key, value in state.tensors.items()},
            notes=(*state.notes, f"the prefix {prefix!r} was stripped from every key"),
        )
        yield state
