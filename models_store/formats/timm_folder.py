"""A folder as timm sends it to a hub: config.json names the network and says how its pictures are normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import timm

from models_store.errors import Unusable
from models_store.formats import classifiers
from models_store.formats.state import Recognised, StateDict
from models_store.known import in_unit

# timm's name may carry the tag of its weights.
TAG = "."
WRAPPER = "timm_wrapper"


def is_timm(config: Mapping[str, Any] | None) -> bool:
    """Also where transformers wraps timm's network and says so."""
    return (
        config is not None
        and config.get("model_type", WRAPPER) == WRAPPER
        and isinstance(config.get("architecture"), str)
    )


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None where there is no such config.json. Raises Unusable ``unknown_architecture`` and what a classifier's file does."""
    if state.config is None or not is_timm(state.config):
        return None
    name = state.config["architecture"].partition(TAG)[0]
    if not timm.is_model(name):
        raise Unusable(
            "unknown_architecture",
            f"config.json names {name[:60]!r}, which the installed timm ({timm.__version__}) does not have: save the weights "
            "of a network that it has",
        )
    found = classifiers.recognise(replace(state, config=None), hint or f"timm/{name}")
    if found is None:
        return None
    said = state.config.get("pretrained_cfg")
    held = {**state.config, **(said if isinstance(said, Mapping) else {})}
    pixels = {
        key: tuple(float(v) for v in held[key])
        for key in ("mean", "std")
        if isinstance(held.get(key), list) and len(held[key]) == 3
    }
    whole = in_unit(pixels) if len(pixels) == 2 else {}
    return replace(found, input={**found.input, **whole}, open_input="", warnings=())
