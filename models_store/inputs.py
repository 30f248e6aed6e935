"""How a converted checkpoint sees pictures: what is given, before what is known, before what is usual."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from models_store.archs import Architecture
from models_store.errors import Unusable, some
from models_store.formats.state import Recognised, StateDict
from models_store.known import Facts, in_unit, input_of, metadata_input, published_otherwise
from models_store.manifest import IMAGENET_MEAN, IMAGENET_STD, Input

ORDERS = ("rgb", "bgr")
FOCUS = "backbone.backbone.stem.conv.conv.weight"


def as_beside(recognised: Recognised, state: StateDict) -> Recognised:
    """``recognised`` with the mean, std and channel order that lie beside its weights, which a note says."""
    if (pixels := state.pixels) is None:
        return recognised
    found = replace(recognised, channel_order=recognised.channel_order or pixels.order)
    if pixels.mean is None or pixels.std is None:
        return found
    said = f"mean and std are those that lie beside the weights ({pixels.where})"
    return replace(
        found,
        input={**found.input, "mean": pixels.mean, "std": pixels.std},
        open_input="",
        notes=(*found.notes, said),
    )


def maybe_otherwise(
    recognised: Recognised, spec: Input, state: StateDict, facts: Facts, overrides: Mapping[str, Any]
) -> tuple[str, ...]:
    """A warning where nothing says by which of several normalisations a network's published weights see pixels."""
    said = {**recognised.input, **metadata_input(state.metadata), **facts.input, **overrides}
    if recognised.kind != "backbone" or recognised.backbone is None or "mean" in said:
        return ()
    others = published_otherwise(recognised.backbone)
    if not others:
        return ()
    name = recognised.backbone.partition("/")[2]
    them = "; ".join(
        f"mean {_short(mean)}, std {_short(std)}: {some(tags, 3)}" for (mean, std), tags in others.items()
    )
    return (
        f"read with mean {_short(spec.mean)}, std {_short(spec.std)}; timm publishes weights of {name} for other pixels too "
        f"({them}), and which these began from is not in the file: give mean and std, or architecture=timm/{name}.<tag>",
    )


def _short(values: tuple[float, ...]) -> list[float]:
    return [round(value, 3) for value in values]


def input_spec(
    architecture: Architecture,
    recognised: Recognised,
    state: StateDict,
    facts: Facts,
    overrides: Mapping[str, Any],
) -> Input:
    """The Input of the manifest. Raises Unusable ``bad_override``, and ``ambiguous`` where it must be asked for."""
    base = asdict(architecture.input)
    if recognised.backbone is not None:
        base |= {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} | input_of(recognised.backbone)
    known = (metadata_input(state.metadata) if state.pixels is None else {}) | dict(facts.input)
    given = _pixels(overrides)
    if recognised.open_input and not known and len(given) < 2:
        raise Unusable("ambiguous", recognised.open_input)
    base |= dict(recognised.input) | known | given
    for key in ("mean", "std"):
        base[key] = _three(key, base[key])
    if base["fixed_size"] is not None:
        base["fixed_size"] = tuple(base["fixed_size"])
    return _sized(Input(**base), overrides)


def _pixels(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Given mean and std, brought to RGB in [0, 1]."""
    given = {key: _three(key, overrides[key]) for key in ("mean", "std") if key in overrides}
    given = in_unit(given)
    if channel_order(overrides) == "bgr":
        given = {key: values[::-1] for key, values in given.items()}
    return given


def channel_order(overrides: Mapping[str, Any]) -> str | None:
    """The given order. Raises Unusable ``bad_override``."""
    order = overrides.get("channel_order")
    if order is not None and order not in ORDERS:
        raise Unusable("bad_override", f"channel_order {str(order)[:20]!r}: {' | '.join(ORDERS)}")
    return order


def _three(key: str, value: Any) -> tuple[float, ...]:
    values = tuple(float(v) for v in value)
    if len(values) != 3 or not all(math.isfinite(v) for v in values) or (key == "std" and min(values) <= 0):
        raise Unusable("bad_override", f"{key} must be three finite numbers (std above 0), found {values}")
    return values


def _sized(spec: Input, overrides: Mapping[str, Any]) -> Input:
    low, high = overrides.get("min_size"), overrides.get("max_size")
    if low is None and high is None:
        return spec
    if spec.fixed_size is not None:
        side = int(low or high or 0)
        if low and high and low != high:
            raise Unusable("bad_override", "this detector has one input size: give min_size alone")
        return replace(spec, fixed_size=(side, side), min_size=side, max_size=side)
    spec = replace(
        spec,
        min_size=spec.min_size if low is None else int(low),
        max_size=spec.max_size if high is None else int(high),
    )
    if not 0 < spec.min_size <= spec.max_size:
        raise Unusable(
            "bad_override", f"min_size {spec.min_size} must be at most max_size {spec.max_size} and above 0"
        )
    return spec


def turned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network for RGB: the input channels of its first convolution change places.

    Where the first convolution reads four pixels at once (YOLOX), each of them. Raises Unusable ``bad_override`` where not
    exactly one convolution reads three channels.
    """
    if FOCUS in tensors and tensors[FOCUS].shape[1] == 4 * 3:
        return {**tensors, FOCUS: tensors[FOCUS].unflatten(1, (4, 3)).flip(2).flatten(1, 2)}
    first = [k for k, v in tensors.items() if v.dim() == 4 and v.shape[1] == 3]
    if len(first) != 1:
        raise Unusable(
            "bad_override",
            f"channel_order bgr needs one first convolution over three channels, found {len(first)}",
        )
    return {**tensors, first[0]: tensors[first[0]].flip(1)}
