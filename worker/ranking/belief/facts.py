"""What a belief knows of a checkpoint, from its manifest and scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.ranking.belief.records import MAPS, SCORES, Facts


def architecture_of(architecture: str, backbone: str | None) -> str:
    """With its body where it takes any."""
    return f"{architecture} over {backbone}" if backbone else architecture


def is_untrained(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest says that no layer of its body was trained."""
    layers = [each for each in manifest.get("layers", []) if each["name"].startswith("backbone.")]
    told = str(manifest.get("provenance", {}).get("trained_on", "")).startswith("nothing")
    return told or (bool(layers) and not any(each.get("trained", True) for each in layers))


def trained_parameters_of(manifest: Mapping[str, Any]) -> int | None:
    """Without those of fresh heads and necks, whose width is no merit of the weights; all where that was not told apart."""
    found: int | None = manifest.get("published", {}).get("trained_parameters", manifest.get("parameters"))
    return found


def stride_of(manifest: Mapping[str, Any]) -> int | None:
    """Pixels between two cells of the finest map behind the body: of the neck, or of an encoder's memory.

    Where nothing stands between, `backbone.c4`, which regions of a C4 detector are cut from; None where that is not known.
    """
    maps = {
        each["name"]: each["stride"]
        for each in manifest.get("layers", [])
        if each.get("kind", "map") == "map" and each.get("stride")
    }
    behind = [stride for name, stride in maps.items() if not name.startswith("backbone.")]
    return min(behind) if behind else maps.get("backbone.c4")


def facts_of_manifest(manifest: Mapping[str, Any]) -> Facts:
    """All but its scores; `manifest` as JSON."""
    return Facts(
        manifest["weights_sha256"],
        architecture_of(manifest["architecture"], manifest.get("backbone")),
        trained_parameters_of(manifest),
        manifest["kind"] == "detector",
        is_untrained(manifest),
        stride=stride_of(manifest),
    )


def scores_of(
    values: Mapping[tuple[str, str], tuple[float | None, float | None]],
) -> dict[tuple[str, str], float]:
    """SCORES of one candidate, not yet standardised, from {(metric, layer): (value, zero point)}: means over MAPS."""
    found = {}
    for metric, quantity in SCORES:
        own = [values[metric, layer] for layer in MAPS if (metric, layer) in values]
        known = [
            value - zero if quantity == "gain" else value
            for value, zero in ((v, 0.0 if quantity == "value" else z) for v, z in own)
            if value is not None and zero is not None
        ]
        if known:
            found[metric, quantity] = sum(known) / len(known)
    return found
