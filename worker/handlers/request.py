"""What a ranking asks for, in the words of the libraries."""

from typing import Any

from worker.features.extract import Spec
from worker.features.layers import DEFAULT_LEVELS, LEVELS
from worker.metrics import OF_SOURCE
from worker.ranking.records import Filters, RankBy


def spec_of(request: dict[str, Any]) -> Spec:
    """Which features to extract; what the request leaves open is the default of the library."""
    level = request.get("level")
    levels = LEVELS if level == "both" else (level,) if level else DEFAULT_LEVELS
    # layers the caller did not name are the library's choice for each candidate: one without them is read nearby
    layers = None if request.get("layers_by_default") else request.get("layers")
    return Spec(
        layers=tuple(layers) if layers else None,
        levels=levels,
        max_images=request.get("max_images"),
        image_size=request.get("image_size"),
        seed=request.get("seed") or 0,
        source_probabilities=not set(OF_SOURCE).isdisjoint(request.get("metrics") or ()),
    )


def rank_by_of(request: dict[str, Any]) -> RankBy:
    return RankBy(**(request.get("rank_by") or {}))


def filters_of(request: dict[str, Any]) -> Filters:
    asked = dict(request.get("filters") or {})
    licences = asked.pop("licences", None)
    return Filters(**asked, licences=tuple(licences) if licences is not None else None)
