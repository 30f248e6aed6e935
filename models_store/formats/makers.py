"""Classifiers as those who made them publish them, under other names than timm has: renamed by timm's own tables.

timm's modules keep a function that brings an original release to their names (ConvNeXt, Swin, Hiera and some forty more).
The network is found by its number of weights; a file is accepted by comparing every key and shape, as any other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import timm
import torch
from torch import Tensor

from models_store.bodies.build import full_model
from models_store.errors import out_of_memory
from models_store.formats.signatures import HEADS, index
from models_store.formats.state import StateDict

TABLES = (".relative_position_index", ".relative_coords_table", ".attn_mask")
STATISTICS = (".running_mean", ".running_var")
CLASSES = 1000  # of the networks that are counted in the index
TABLE = "checkpoint_filter_fn"


def beside(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Keys of what no body holds: classifiers, and tables that are computed again."""
    return tuple(k for k in tensors if k.startswith(HEADS) or k.endswith(TABLES))


def renamed(state: StateDict, name: str | None = None) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(backbone, tensors under timm's names but those `beside`) for every network of timm with as many weights; only
    ``timm/<name>`` if given."""
    left = set(beside(state.tensors))
    given = {k: t for k, t in state.tensors.items() if k not in left}
    for backbone in _as_large(given, state.tensors) if name is None else [name]:
        found = _by_table(backbone, given)
        if found is not None and _numbers(found) == _numbers(given):
            yield backbone, found


def _as_large(given: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> list[str]:
    """Networks that timm has a table of and that differ in size by their classes alone."""
    body = _weights(given)
    if not body:
        return []
    widths = {size for tensor in whole.values() for size in tensor.shape}
    heads = {CLASSES * (width + 1) for width in widths}
    return [
        name
        for name, whole in index()["parameters"].items()
        if whole - body in heads and _table(name) is not None
    ]


def _weights(tensors: Mapping[str, Tensor]) -> int:
    return sum(t.numel() for k, t in tensors.items() if t.is_floating_point() and not k.endswith(STATISTICS))


def _numbers(tensors: Mapping[str, Tensor]) -> int:
    return sum(t.numel() for t in tensors.values())


def _table(backbone: str) -> Any:
    library, _, name = backbone.partition("/")
    if library != "timm" or not timm.is_model(name):
        return None
    return getattr(sys.modules[timm.models.model_entrypoint(name).__module__], TABLE, None)


@torch.no_grad()
def _by_table(backbone: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """None where the table does not fit these names."""
    table = _table(backbone)
    if table is None:
        return None
    try:
        found = table(dict(tensors), full_model(backbone))
    # a table is written for the files of its makers and falls over others in many ways
    except Exception as error:
        if out_of_memory(error):
            raise
        return None
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        return None
    return dict(found)
