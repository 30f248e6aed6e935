"""In which precision a network is read, decided by what it did to the scores.

A low precision is chosen only where LogME, TLogME, H-score and TransRate stayed within 1e-3 of float32 (of the value
itself where that is above 1) on bccd, deeppcb, pennfudan and ships (ResNet-50: the first two), 320 pixels, trained
weights, every backbone stage.

bfloat16 (8 bits) never did. Largest differences of LogME, LogME of boxes and H-score: ResNet-50 2e-3, 4e-3, 1e-2;
SqueezeNet 1e-3, 3e-3, 1e-2; MobileNetV2 2e-2, 7e-2, 2e-2; EfficientNet-Lite0 6e-3, 1e-1, 1e-2. What it rounds is a
twentieth to a fifth of what objects differ by, most of all in the narrow linear layers of inverted residuals.

float16 (11 bits; tried on a CPU by rounding values and weights, sums in float32) did with ResNet-50: 2e-4, 1e-4, 2e-4,
and 1e-4 of TransRate. With MobileNetV2 it did not: 2e-2 in H-score. On CPUs but the newest it is slower than float32,
so it is chosen on CUDA alone. Query-based detectors stay in float32: which query an object is matched with is a
decision that rounding can turn over.
"""

from __future__ import annotations

import re

import torch

from models_store.manifest import Manifest
from worker.features.errors import Unextractable

AUTO = "auto"
PRECISIONS = ("float32", "bfloat16", "float16")
TOLERANCE = 1e-3
# The metrics that the tolerance is held for. Those that cluster or rank (N-LEEP, PARC) jump at any rounding.
HELD = ("logme", "logme_boxes", "tlogme", "h_score", "h_score_regularized", "transrate")

# By device: bodies, by name, that keep the scores, and the precision they do it in.
LOW: dict[str, tuple[tuple[str, str], ...]] = {
    "cpu": (),
    "cuda": ((r"(wide_)?resne(t|xt)\d+.*", "float16"),),
}
# Of the first cards that compute in it faster than in float32.
_FLOAT16_CAPABILITY = (7, 0)


def precision_of(asked: str, manifest: Manifest, device: torch.device) -> str:
    """`asked`, or for "auto" what the network may be read in on this device. Raises Unextractable for another word."""
    if asked in PRECISIONS:
        return asked
    if asked != AUTO:
        raise Unextractable("unknown_precision", f"precision is one of {(AUTO, *PRECISIONS)}; got {asked!r}")
    low = low_precision(manifest, device.type)
    if low is None or (
        device.type == "cuda" and torch.cuda.get_device_capability(device) < _FLOAT16_CAPABILITY
    ):
        return "float32"
    return low


def low_precision(manifest: Manifest, device_type: str) -> str | None:
    """The precision below float32 that keeps the scores of this network within the tolerance; None where none does."""
    if manifest.architecture.startswith("transformers/") or manifest.architecture.endswith("detr"):
        return None
    body = body_of(manifest)
    return next((name for pattern, name in LOW.get(device_type, ()) if re.fullmatch(pattern, body)), None)


def body_of(manifest: Manifest) -> str:
    """The backbone's name without its library, of a whole detector the part of the name that says it."""
    name = (manifest.backbone or manifest.architecture).split("/")[-1]
    return name if manifest.backbone else re.sub(r"^[a-z]+?rcnn_|^(retinanet|fcos)_|_fpn.*$", "", name)
