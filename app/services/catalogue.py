"""What the workers can compute, as data: `app/catalogue.json`, written by `python -m worker.catalogue`.

{"metrics": [{"name", "default": bool, ...}], "layers": [{"name", "default": bool, ...}], "levels": [...],
 "architectures": [{"name", ...}], "shelf": [{"name", "family", "licence", "parameters", "coco_ap", ...}],
 "pretraining": {..., "least_pictures", "mean_decay"}, "image_labels": {"least_pictures"},
 "formats": {"datasets": [{"name", ...}], "checkpoints": [{"name", ...}]},
 "defaults": {"level", "max_images", "image_size", "seed", "regions": {...},
              "size_matched": {"name", "layers": [...]}}}
"""

import difflib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

ALL_LAYERS = "all"


@cache
def catalogue() -> dict[str, Any]:
    return json.loads(resources.files("app").joinpath("catalogue.json").read_text(encoding="utf-8"))


def names(section: str) -> list[str]:
    """Names of the `metrics`, `layers` or `architectures`."""
    return [entry["name"] for entry in catalogue()[section]]


def default_names(section: str) -> list[str]:
    """Those used where a request names none."""
    return [entry["name"] for entry in catalogue()[section] if entry.get("default")]


def readable_layers() -> list[str]:
    """Names of the layers that a request may name; the layer of the metrics of own classes is not among them."""
    return [entry["name"] for entry in catalogue()["layers"] if "metrics" not in entry]


def source_layer() -> tuple[str, list[str]]:
    """Where metrics of a detector's own classes are scored, whatever layers are asked for; their names."""
    (entry,) = (entry for entry in catalogue()["layers"] if "metrics" in entry)
    return entry["name"], entry["metrics"]


def region_metrics() -> list[str]:
    """Names of the metrics that read regions, themselves or in their terms."""
    rows = {entry["name"]: entry["rows"] for entry in catalogue()["metrics"]}
    return [
        entry["name"]
        for entry in catalogue()["metrics"]
        if any(rows[name] != "objects" for name in (entry["name"], *entry["terms"]))
    ]


def pool_relative() -> set[str]:
    """Names of the metrics whose values change when a candidate joins or leaves."""
    return {entry["name"] for entry in catalogue()["metrics"] if entry["pool_relative"]}


def size_matched() -> tuple[str, list[str]]:
    """The name that stands for the layer that fits the size of the objects, and the layers that it is chosen from."""
    found = catalogue()["defaults"]["size_matched"]
    return found["name"], found["layers"]


def dataset_formats() -> list[str]:
    return [entry["name"] for entry in catalogue()["formats"]["datasets"]]


def default(name: str) -> Any:
    return catalogue()["defaults"].get(name)


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """A sentence for a caller who named an unknown `what`: the nearest name, and all names."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}" if near else ""
    return f"no {what} is called {name!r}{hint}? Known: {', '.join(known)}"
