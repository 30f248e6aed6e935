"""Build a model for its names and shapes alone: without memory for its weights, or without drawing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from models_store.errors import Unusable

# of torch.nn.init and of tensors
_DRAWING = frozenset(
    (
        "uniform_",
        "normal_",
        "trunc_normal_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "xavier_uniform_",
        "xavier_normal_",
    )
)


class _EmptyOnMeta(TorchFunctionMode):
    """Weights are allocated with ``torch.empty``; what builders compute with (depths, anchors) is not.

    Drawing values that have no memory does nothing, and takes half of the time of building.
    """

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _DRAWING and _drawn_on(args, kwargs).is_meta:
            return _drawn_on(args, kwargs)
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


def _drawn_on(args: Any, kwargs: Any) -> torch.Tensor:
    return args[0] if args else kwargs["tensor"]


class _NothingDrawn(TorchFunctionMode):
    """What would fill a tensor with random values leaves it as it was allocated."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWING:
            return _drawn_on(args, kwargs)
        return func(*args, **kwargs)


def undrawn(build: Callable[[], nn.Module]) -> nn.Module:
    """``build()`` with whatever was in memory where its random weights belong: for whoever fills every one of them.

    Drawing them takes two thirds and more of the building of a Faster R-CNN.
    """
    with _NothingDrawn():
        return build()


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Key to shape, in the order of the state dict."""
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
