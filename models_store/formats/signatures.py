"""An index from key names and shapes to the torchvision and timm classifiers that have them.

``python -m models_store.formats.signatures`` writes it anew with the installed libraries. It only says what
to try: a file is accepted by building the architecture and comparing every key.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import timm
import torchvision

from models_store.archs.bodies import TORCHVISION_CHAINS, full_model

INDEX = Path(__file__).with_name("signatures.json")
COUNTER = ".num_batches_tracked"
HEADS = ("fc.", "_fc.", "classifier.", "classifiers.", "head.", "heads.", "head_dist.", "last_linear.", "aux1.", "aux2.",
         "AuxLogits.", "pre_logits.")  # fmt: skip
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
def index() -> dict[str, dict[str, list[str]]]:
    return json.loads(INDEX.read_text(encoding="utf-8"))


def lookup(shapes: Shapes) -> list[str]:
    """Backbones with exactly these keys and shapes, the likeliest first."""
    return index()["keys"].get(by_keys(shapes), [])


def lookup_order(shapes: Shapes) -> list[str]:
    """Backbones whose tensors have these shapes in this order under other names."""
    return index()["order"].get(by_order(shapes), [])


def _shapes_of(backbone: str) -> dict[str, tuple[int, ...]]:
    model = full_model(backbone)
    if backbone.startswith("timm/") and not hasattr(model, "forward_intermediates"):
        raise TypeError(f"{backbone} has no forward_intermediates")
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


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


def make_index(names: Iterable[str]) -> tuple[dict[str, dict[str, list[str]]], dict[str, str]]:
    """The index over ``names`` and why some are left out."""
    keys, order, left_out = defaultdict(list), defaultdict(list), {}
    for name in names:
        try:
            shapes = _shapes_of(name)
        except Exception as error:  # any model that cannot be built without memory is left to its name
            left_out[name] = f"{type(error).__name__}: {error}"[:200]
            continue
        for table, digest in ((keys, by_keys(shapes)), (order, by_order(shapes))):
            if len(table[digest]) < MOST_NAMES:
                table[digest].append(name)
    return {"keys": dict(sorted(keys.items())), "order": dict(sorted(order.items()))}, left_out


if __name__ == "__main__":
    made, left = make_index(candidates())
    INDEX.write_text(json.dumps(made, indent=0, separators=(",", ":")) + "\n", encoding="utf-8")
    sys.stderr.write(f"{len(made['keys'])} signatures, left out: {json.dumps(left, indent=1)}\n")
