"""The table of public weights: licence and published figures by the name that they are fetched by. No torch here."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("shelf.toml")
# Figures of an entry, and what they are called where orders by published figures read them; in per cent.
FIGURES = {"coco_ap": "coco_box_map", "rf100_vl_ap": "rf100_vl_ap"}


@cache
def table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def hub_entry(uri: str) -> dict[str, Any] | None:
    """``licence``, ``published`` and ``source`` of a hub's repository, whatever revision of it is named."""
    name = "/".join(uri.partition("@")[0].split("/")[:4])
    for group in table()["detectors"]:
        for entry in group["entries"]:
            if entry["uri"] == name:
                figures = {ours: entry[theirs] for theirs, ours in FIGURES.items() if theirs in entry}
                return {
                    "licence": group["licence"],
                    "published": figures,
                    "source": table()["sources"][group["family"]],
                }
    return None
