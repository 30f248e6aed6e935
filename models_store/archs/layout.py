"""Where a pyramid reads its body and what it adds, where that is not the usual: the option ``pyramid``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from models_store.errors import Unusable

EXTRAS = ("pool", "p6p7", "p6p7_c5", "none")
HELP = (
    'pyramid: give {"takes": ["c3", "c4", "c5"], "extra": "pool"} (stages of the body, or its step i as "#i"; extra is '
    + ", ".join(EXTRAS)
    + ') or {"single": "c5"} for one map without a pyramid'
)


@dataclass(frozen=True)
class Layout:
    """``takes``: stages of the body, or ``#i`` for its step i, fine to coarse; one of them without a pyramid if ``single``.

    ``extra``: ``pool`` (a coarser map by pooling), ``p6p7`` of the last map of the pyramid or of the body (``p6p7_c5``).
    """

    takes: tuple[str, ...]
    extra: str = "none"
    single: bool = False


def layout_of(options: Mapping[str, Any]) -> Layout | None:
    """None without the option. Raises Unusable ``bad_override``."""
    given = options.get("pyramid")
    if given is None:
        return None
    if isinstance(given, Mapping) and set(given) == {"single"} and isinstance(given["single"], str):
        return Layout((given["single"],), single=True)
    whole = isinstance(given, Mapping) and set(given) <= {"takes", "extra"}
    takes = given.get("takes") if whole else None
    if (
        not isinstance(takes, list | tuple)
        or not takes
        or not all(isinstance(name, str) for name in takes)
        or given.get("extra", "pool") not in EXTRAS
    ):
        raise Unusable("bad_override", HELP)
    return Layout(tuple(takes), given.get("extra", "pool"))


def extra_block(kind: str, channels: int, last: int) -> ExtraFPNBlock | None:
    """``last``: channels of the body's last map."""
    if kind == "pool":
        return LastLevelMaxPool()
    return None if kind == "none" else LastLevelP6P7(last if kind == "p6p7_c5" else channels, channels)
