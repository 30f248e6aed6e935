"""Which normalisation a placed detector has: ``norm: frozen | bn | syncbn | gn``.

The body keeps its pretrained statistics whatever is chosen, so ``gn`` means frozen norms there and group norms in
neck and heads. Batch statistics of two images or fewer are noise; ``frozen`` or ``gn`` are for such batches.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from timm.layers import convert_sync_batchnorm
from timm.utils.model import freeze_batch_norm_2d
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from models_store.errors import Unusable

KINDS = ("frozen", "bn", "syncbn", "gn")
MOVING = ("bn", "syncbn")
GROUPS = 32

NormLayer = Callable[[int], nn.Module]


def norm_of(options: Mapping[str, Any], default: str | None, allowed: Collection[str] = KINDS) -> str | None:
    """The option ``norm``; None leaves the body as its library builds it. Raises Unusable ``bad_override``."""
    kind = options.get("norm", default)
    if kind is not None and kind not in allowed:
        raise Unusable("bad_override", f"norm {kind!r} is not offered here: {' | '.join(allowed)}")
    return kind


def layer_of(kind: str | None) -> NormLayer | None:
    """The layer that neck and heads get, from their number of channels."""
    layers: dict[str | None, NormLayer] = {
        "frozen": FrozenBatchNorm2d,
        "bn": nn.BatchNorm2d,
        "syncbn": nn.SyncBatchNorm,
        "gn": partial(nn.GroupNorm, GROUPS),
    }
    return layers.get(kind)


def set_body_norms(body: nn.Module, kind: str | None) -> None:
    """Freeze or synchronise the body's batch norms in place; key names stay. A body without them is not changed."""
    for name, child in list(body.named_children()):
        if kind in ("frozen", "gn"):
            setattr(body, name, freeze_batch_norm_2d(child))
        elif kind == "syncbn":
            setattr(body, name, convert_sync_batchnorm(child))


def set_eps(body: nn.Module, eps: float | None) -> None:
    """Another epsilon for every batch norm of the body, frozen or not; None leaves the library's."""
    for part in body.modules():
        if eps is not None and hasattr(part, "running_var") and hasattr(part, "eps"):
            part.eps = eps


def statistics_move(module: nn.Module) -> bool:
    """Whether a training step may move the running statistics: only where ``norm`` asked for it."""
    return getattr(module, "norm_kind", None) in MOVING
