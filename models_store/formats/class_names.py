"""Names of classes that lie beside the weights, under the names that trainers give them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

BY_INDEX = (
    "class_names",
    "CLASSES",
    "classes",
    "classnames",
    "label_names",
    "names",
    "categories",
    "labels",
    "id2label",
    "idx_to_class",
    "idx2class",
    "id_to_name",
    "label_map",
)
BY_NAME = ("class_to_idx", "label2id", "class_to_id", "name_to_id", "label_map")
WHERE = (
    "meta",
    "dataset_meta",
    "args",
    "hyper_parameters",
    "hparams",
    "config",
    "cfg",
    "metadata",
    "model_args",
    "model_config",
    "extra",
)
DEEPEST = 3
MOST = 10_000
LONGEST = 200
BACKGROUND = {"__background__", "background", "_background_", "bg", "__bg__", "n/a", "no-object", "no_object"}


def beside(obj: object, depth: int = 0) -> dict[int, str] | None:
    """Index to name as the file says, {0: ...} of a list; None where it says nothing, or nothing plain."""
    held = vars(obj) if isinstance(obj, argparse.Namespace) else obj
    if not isinstance(held, Mapping) or depth > DEEPEST:
        return None
    for key in (*BY_INDEX, *BY_NAME):
        if (names := _read(held.get(key))) is not None:
            return names
    for key in WHERE:
        if (names := beside(held.get(key), depth + 1)) is not None:
            return names
    return None


def in_metadata(metadata: Mapping[str, str]) -> dict[int, str] | None:
    """The same of a safetensors file, whose values are JSON."""
    found = {}
    for key in (*BY_INDEX, *BY_NAME):
        try:
            found[key] = json.loads(metadata.get(key, "null"))
        except (ValueError, RecursionError):
            continue
    return beside(found)


def _read(value: object) -> dict[int, str] | None:
    if (
        isinstance(value, Tensor)
        or not isinstance(value, Mapping | list | tuple)
        or not 0 < len(value) <= MOST
    ):
        return None
    if isinstance(value, Mapping):
        pairs = list(value.items())
        if all(isinstance(v, int) and not isinstance(v, bool) for _, v in pairs):
            pairs = [(v, k) for k, v in pairs]
    else:
        pairs = list(enumerate(value))
    found: dict[int, str] = {}
    for index, name in pairs:
        if isinstance(name, Mapping):  # COCO's categories; their ids are not those of the head
            name = name.get("name")
        if isinstance(index, str) and index.isdecimal() and len(index) < LONGEST:
            index = int(index)
        if not isinstance(index, int) or isinstance(index, bool) or not isinstance(name, str) or not name:
            return None
        found[index] = name[:LONGEST]
    return found if len(found) == len(pairs) else None


def is_background(name: Any) -> bool:
    return str(name).strip().lower() in BACKGROUND
