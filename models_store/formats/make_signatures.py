"""``python -m models_store.formats.make_signatures``: write the index of signatures with the installed libraries."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import timm
import torchvision

from models_store.bodies.build import TORCHVISION_CHAINS, full_model
from models_store.bodies.outline import shapes_of
from models_store.formats.signatures import INDEX, MOST_NAMES, by_keys, by_order


def candidates() -> list[str]:
    """Every backbone that could be placed: torchvision first, then timm's with published weights, then the rest."""
    own = [
        n
        for n in torchvision.models.list_models(module=torchvision.models)
        if n.startswith(TORCHVISION_CHAINS)
    ]
    trained = timm.list_models(pretrained=True)
    bare = list(dict.fromkeys(n.split(".")[0] for n in trained))
    rest = [n for n in timm.list_models() if n not in set(bare)]
    return [f"torchvision/{n}" for n in own] + [f"timm/{n}" for n in bare + rest]


def signatures_of(backbone: str) -> tuple[list[dict[str, tuple[int, ...]]], int]:
    """Shapes of the whole classifier and of what is left of it as a body, and its number of parameters."""
    model = full_model(backbone)
    parameters = sum(p.numel() for p in model.parameters())
    found = [shapes_of(model)]
    if backbone.startswith("timm/"):
        model.prune_intermediate_layers(
            list(range(len(model.feature_info))), prune_norm=False, prune_head=True
        )
        found.append(shapes_of(model))
    return found, parameters


def make_index(names: Iterable[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The index over ``names`` and why some are left out."""
    keys: dict[str, list[str]] = defaultdict(list)
    order: dict[str, list[str]] = defaultdict(list)
    parameters: dict[str, int] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            found, parameters[name] = signatures_of(name)
        except Exception as error:  # whatever cannot be built or pruned by the library is left to its name
            left_out[name] = f"{type(error).__name__}: {error}"[:200]
            continue
        for shapes in found:
            for table, digest in ((keys, by_keys(shapes)), (order, by_order(shapes))):
                if len(table[digest]) < MOST_NAMES and name not in table[digest]:
                    table[digest].append(name)
    tables: dict[str, dict[str, Any]] = {"keys": keys, "order": order, "parameters": parameters}
    return {name: dict(sorted(table.items())) for name, table in tables.items()}, left_out


if __name__ == "__main__":
    made, left = make_index(candidates())
    INDEX.write_text(json.dumps(made, indent=0, separators=(",", ":")) + "\n", encoding="utf-8")
    sys.stderr.write(f"{len(made['keys'])} signatures, left out: {json.dumps(left, indent=1)}\n")
