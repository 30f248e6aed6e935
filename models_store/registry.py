"""Architectures and named weights as data, for lists that people choose from."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import timm
import torchvision

from models_store.archs import ARCHITECTURES
from models_store.bodies.build import TORCHVISION_CHAINS
from models_store.formats.signatures import index
from models_store.known import facts_of

CATEGORY = {
    "two_stage": "two-stage",
    "one_stage": "one-stage",
    "ssd": "single shot, one input size",
    "detr": "queries and a transformer (DETR)",
}


def architectures() -> list[dict[str, Any]]:
    """Every architecture: name, title, family, input, whether it takes any backbone, and its named weights."""
    return [
        {
            "name": a.name,
            "title": a.title,
            "family": a.family,
            "family_title": CATEGORY[a.family],
            "places_backbone": a.places_backbone,
            "norms": list(a.norms),
            "input": asdict(a.input),
            "weights": [_torchvision_row(w) for w in torchvision.models.get_model_weights(a.builder)]
            if a.builder
            else [],
            "notes": list(a.notes),
        }
        for a in ARCHITECTURES.values()
    ]


def backbones(library: str | None = None) -> list[dict[str, Any]]:
    """Named backbone weights: ``uri``, ``backbone``, ``licence``, ``parameters``, ``imagenet_top1`` where known."""
    rows: list[dict[str, Any]] = []
    if library in (None, "torchvision"):
        for name in torchvision.models.list_models(module=torchvision.models):
            if name.startswith(TORCHVISION_CHAINS):
                rows += [_torchvision_row(entry) for entry in torchvision.models.get_model_weights(name)]
    if library in (None, "timm"):
        rows += [timm_row(name) for name in timm.list_models(pretrained=True)]
    return rows


def _torchvision_row(entry: Any) -> dict[str, Any]:
    facts = facts_of(entry)
    return {
        "uri": f"torchvision://{facts.provenance['weights']}",
        "architecture": facts.architecture,
        "backbone": facts.backbone,
        "licence": facts.licence,
        "parameters": facts.published.get("parameters"),
        "coco_box_map": facts.published.get("coco_box_map"),
        "imagenet_top1": facts.published.get("imagenet_top1"),
        "sha256_prefix": (re.findall(r"-([0-9a-f]{8})\.pth$", entry.url) or [None])[0],
    }


def timm_row(name: str) -> dict[str, Any]:
    """The same of one named weights of timm."""
    config = timm.get_pretrained_cfg(name)
    backbone = f"timm/{name.split('.')[0]}"
    return {
        "uri": f"timm://{name}",
        "architecture": None,
        "backbone": backbone,
        "licence": config.license if config else None,
        "parameters": index()["parameters"].get(backbone),
        "coco_box_map": None,
        "imagenet_top1": None,
        "sha256_prefix": None,
    }
