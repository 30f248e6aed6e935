"""An index from key names and shapes to the torchvision and timm classifiers that have them.

``python -m models_store.formats.make_signatures`` writes it anew with the installed libraries. It only says what
to try: a file is accepted by building the architecture and comparing every key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

INDEX = Path(__file__).with_name("signatures.json")
COUNTER = ".num_batches_tracked"
HEADS = (
    "fc.",
    "_fc.",
    "classifier.",
    "classifiers.",
    "head.",
    "heads.",
    "head_dist.",
    "last_linear.",
    "aux1.",
    "aux2.",
    "AuxLogits.",
    "pre_logits.",
)
MOST_NAMES = 6
Shapes = Mapping[str, tuple[int, ...]]


def body_shapes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Without classifier heads and norm counters, in the given order."""
    return {k: tuple(s) for k, s in shapes.items() if not k.endswith(COUNTER) and not k.startswith(HEADS)}


def by_keys(shapes: Shapes) -> str:
    """A digest of names and shapes, whatever their order."""
    return _digest(f"{key} {shape}" for key, shape in sorted(body_shapes(shapes).items()))


def by_order(shapes: Shapes) -> str:
    """A digest of last names (weight, bias, running_mean, ...) and shapes in order, whatever their prefixes."""
    return _digest(f"{key.rsplit('.', 1)[-1]} {shape}" for key, shape in body_shapes(shapes).items())


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@cache
def index() -> dict[str, dict[str, Any]]:
    return json.loads(INDEX.read_text(encoding="utf-8"))


def lookup(shapes: Shapes) -> list[str]:
    """Backbones with exactly these keys and shapes, the likeliest first."""
    return index()["keys"].get(by_keys(shapes), [])


def lookup_order(shapes: Shapes) -> list[str]:
    """Backbones whose tensors have these shapes in this order under other names."""
    return index()["order"].get(by_order(shapes), [])
