"""Everything about a checkpoint: fetch it, convert it once, load it as a Detector.

What needs torch is imported on first use, so that the limited child
can bind itself before torch is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from models_store.errors import Unusable
from models_store.fetch import Fetched, fetch
from models_store.isolated import NURSERY
from models_store.limits import Limits
from models_store.load import convert
from models_store.manifest import Input, Layer, Manifest

if TYPE_CHECKING:
    from models_store.detector import Detector, load_detector
    from models_store.export import to_detectron2_file

__all__ = [
    "Detector",
    "Fetched",
    "Input",
    "Layer",
    "Limits",
    "Manifest",
    "Unusable",
    "convert",
    "fetch",
    "load_detector",
    "prepare",
    "to_detectron2_file",
]

NEEDS_TORCH = {
    "Detector": "models_store.detector",
    "load_detector": "models_store.detector",
    "to_detectron2_file": "models_store.export",
}


def prepare() -> None:
    """Start the process that conversions are forked from, where it does not run yet; returns at once."""
    NURSERY.prepare()


def __getattr__(name: str) -> Any:
    if name not in NEEDS_TORCH:
        raise AttributeError(f"module 'models_store' has no attribute {name!r}")
    return getattr(importlib.import_module(NEEDS_TORCH[name]), name)
