"""What a ranking asks for, in the words of the libraries."""

from collections.abc import Sequence
from typing import Any

from models_store.manifest import Layer
from worker.data.dataset import Dataset, sample_images
from worker.features.layers import DEFAULT_LEVELS, LEVELS
from worker.features.regions import RegionSampling
from worker.features.spec import Spec
from worker.metrics import OF_SOURCE
from worker.ranking.records import Filters, RankBy


def spec_of(request: dict[str, Any], available: Sequence[Layer] = ()) -> Spec:
    """Which features to extract of a candidate with these layers; what the request leaves open is the library's default."""
    level = request.get("level")
    levels = LEVELS if level == "both" else (level,) if level else DEFAULT_LEVELS
    layers, regions = request.get("layers"), request.get("regions")
    if request.get("layers_by_default"):
        # a candidate need not have layers that nobody named: without any of them it is read nearby
        trained = [layer.name for layer in available if layer.trained]
        layers = [name for name in layers or () if name in trained]
    return Spec(
        layers=tuple(layers) if layers else None,
        levels=levels,
        max_images=request.get("max_images"),
        image_size=request.get("image_size"),
        seed=request.get("seed") or 0,
        regions=RegionSampling(**regions) if regions else None,
        source_probabilities=not set(OF_SOURCE).isdisjoint(request.get("metrics") or ()),
    )


def sampled(request: dict[str, Any], dataset: Dataset) -> list[int]:
    """The ids of the images that a ranking reads, the same for every candidate."""
    spec = spec_of(request)
    return [image.id for image in sample_images(dataset, spec.max_images, spec.seed, spec.split)]


def rank_by_of(request: dict[str, Any]) -> RankBy:
    return RankBy(**(request.get("rank_by") or {}))


def filters_of(request: dict[str, Any]) -> Filters:
    asked = dict(request.get("filters") or {})
    licences = asked.pop("licences", None)
    return Filters(**asked, licences=tuple(licences) if licences is not None else None)
