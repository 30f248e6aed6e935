"""The shelf: public detectors and backbones to start from, as data for those who bring no checkpoints of their own."""

from __future__ import annotations

from typing import Any

from models_store.archs import ARCHITECTURES
from models_store.public import table as public_table
from models_store.registry import architectures, timm_row

MILLION = 1_000_000
BYTES_OF_A_PARAMETER = 4
TORCHVISION = "torchvision, metadata of its weights"
TORCHVISION_LICENCE = "BSD-3-Clause"


def shelf() -> list[dict[str, Any]]:
    """Rows with ``name`` (of the source), ``family``, ``kind``, ``licence``, ``parameters``, ``bytes``, ``coco_ap``,
    ``rf100_vl_ap`` and ``source`` of the figures; what nobody reported is None. The best COCO AP is first, backbones last.
    """
    table = public_table()
    rows = [*_of_torchvision(), *_of_table(table), *_of_timm(table)]
    return sorted(rows, key=lambda row: (-(row["coco_ap"] or 0.0), row["parameters"], row["name"]))


def _of_torchvision() -> list[dict[str, Any]]:
    return [
        _row(
            weights["uri"],
            ARCHITECTURES[architecture["name"]].family,
            "detector",
            TORCHVISION_LICENCE,
            weights["parameters"],
            TORCHVISION,
            weights["coco_box_map"],
        )
        for architecture in architectures()
        for weights in architecture["weights"]
        # Keypoint R-CNN knows people only: its figure is no AP over COCO's classes.
        if weights["coco_box_map"] is not None and "keypoint" not in architecture["name"]
    ]


def _of_table(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        _row(
            entry["uri"],
            group["family"],
            "detector",
            group["licence"],
            round(entry["parameters"] * MILLION),
            table["sources"][group["family"]],
            entry["coco_ap"],
            entry.get("rf100_vl_ap"),
        )
        for group in table["detectors"]
        for entry in group["entries"]
    ]


def _of_timm(table: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [timm_row(name) for name in table["backbones"]["timm"]]
    return [
        _row(row["uri"], "backbone", "backbone", row["licence"], row["parameters"], "timm, its configuration")
        for row in rows
    ]


def _row(
    name: str,
    family: str,
    kind: str,
    licence: str,
    parameters: int,
    source: str,
    coco_ap: float | None = None,
    rf100_vl_ap: float | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "family": family,
        "kind": kind,
        "licence": licence,
        "parameters": parameters,
        "bytes": parameters * BYTES_OF_A_PARAMETER,
        "coco_ap": coco_ap,
        "rf100_vl_ap": rf100_vl_ap,
        "source": source,
    }
