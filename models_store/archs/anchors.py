"""Other anchors than an architecture's own: the option ``anchors``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator

from models_store.errors import Unusable

MOST = 64


def generator_of(given: Any) -> AnchorGenerator:
    """From ``{"sizes": [[32], [64], ...], "aspect_ratios": [0.5, 1, 2]}``, sizes by level in pixels.

    ``aspect_ratios`` (height / width) may also be one list a level. Raises Unusable ``bad_override``.
    """
    if not isinstance(given, Mapping) or set(given) - {"sizes", "aspect_ratios"}:
        raise Unusable("bad_override", 'anchors: give {"sizes": [[32], ...], "aspect_ratios": [0.5, 1, 2]}')
    sizes = _rows("sizes", given.get("sizes"), None)
    ratios = _rows("aspect_ratios", given.get("aspect_ratios", [0.5, 1.0, 2.0]), len(sizes))
    return AnchorGenerator(sizes, ratios)


def _rows(name: str, value: Any, levels: int | None) -> tuple[tuple[float, ...], ...]:
    rows = list(value) if isinstance(value, list | tuple) else []
    if rows and not any(isinstance(row, list | tuple) for row in rows):
        rows = [rows] * levels if levels else [[row] for row in rows]
    numbers = [v for row in rows for v in (row if isinstance(row, list | tuple) else [None])]
    plain = all(isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < 1e5 for v in numbers)
    if not rows or not plain or len(numbers) > MOST * len(rows) or levels not in (None, len(rows)):
        raise Unusable("bad_override", f"anchors: {name} are lists of positive numbers, one list a level")
    return tuple(tuple(float(v) for v in row) for row in rows)


def chosen(options: Mapping[str, Any], own: AnchorGenerator) -> AnchorGenerator:
    """The option's, for as many levels as ``own`` has and any number a cell, alike on all; ``own`` without the option.

    Raises Unusable ``bad_override``.
    """
    if "anchors" not in options:
        return own
    wanted = generator_of(options["anchors"])
    levels, counts = len(own.sizes), wanted.num_anchors_per_location()
    if len(counts) != levels or len(set(counts)) != 1:
        raise Unusable(
            "bad_override",
            f"anchors: this network has {levels} levels, which need the same number of anchors a cell each; these are {counts}",
        )
    return wanted


def set_anchors(module: nn.Module, options: Mapping[str, Any]) -> None:
    """Give a two-stage or dense detector the anchors of the option, where it is there.

    Raises Unusable ``bad_override`` where its levels or the number of anchors a cell are others.
    """
    if "anchors" not in options:
        return
    owner = getattr(module, "rpn", module)
    own = getattr(owner, "anchor_generator", None)
    if not isinstance(own, AnchorGenerator):
        raise Unusable("bad_override", "this architecture has no anchors to choose")
    wanted = generator_of(options["anchors"])
    before, after = own.num_anchors_per_location(), wanted.num_anchors_per_location()
    if before != after:
        raise Unusable(
            "bad_override",
            f"anchors: the head has {before} anchors a cell on its {len(before)} levels, these are {after}",
        )
    owner.anchor_generator = wanted
