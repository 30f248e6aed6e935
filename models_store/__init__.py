"""Everything about a checkpoint: fetch it, convert it once, load it as a Detector.

Only ``Detector`` and ``load_detector`` need torch; they are imported on first use, so that the limited child
can bind itself before torch is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from models_store.errors import Unusable
from models_store.fetch import Fetched, fetch
from models_store.limits import Limits
from models_store.load import convert
from models_store.manifest import Input, Layer, Manifest

if TYPE_CHECKING:
    from models_store.detector import Detector, load_detector

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
]

NEEDS_TORCH = {"Detector": "models_store.detector", "load_detector": "models_store.detector"}


def __getattr__(name: str) -> Any:
    if name not in NEEDS_TORCH:
        raise AttributeError(f"module 'models_store' has no attribute {name!r}")
    return getattr(importlib.import_module(NEEDS_TORCH[name]), name)
