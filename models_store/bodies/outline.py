"""Build a model for its names and shapes alone, without memory for its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from models_store.errors import Unusable


class _EmptyOnMeta(TorchFunctionMode):
    """Weights are allocated with ``torch.empty``; what builders compute with (depths, anchors) is not."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def outline(build: Callable[[], nn.Module]) -> nn.Module:
    """``build()`` with its weights on the meta device; a model that must run to be built gets real ones."""
    try:
        with _EmptyOnMeta():
            return build()
    except (NotImplementedError, RuntimeError, Unusable):
        return build()


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Key to shape, in the order of the state dict."""
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
