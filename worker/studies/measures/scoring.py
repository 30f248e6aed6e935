"""All scores of one candidate on one dataset, and those that only a pool of candidates has."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models_store.detector import Detector
from worker.data.dataset import Dataset
from worker.features.extract import Features, extract
from worker.features.layers import ALL, SOURCE_LAYER, SOURCE_LEVEL
from worker.features.reading import reading_of
from worker.features.spec import Spec
from worker.metrics import METRICS, OF_SOURCE, FeatureSet, RegionSet, Score, score
from worker.metrics.pool import pool_scores, with_terms
from worker.studies.measures.observations import Place
from worker.studies.measures.sizes import SIZES, region_pixels, size_of, terciles

Row = dict[str, Any]  # metric, layer, level, value, undefined, seconds
LOCAL = "local"
BACKBONE = "backbone."
# those that a study scores where no regions are sampled
ON_OBJECTS = tuple(name for name, metric in METRICS.items() if metric.rows == "objects")


@dataclass(frozen=True)
class ScoringSpec:
    """What is scored. by_size: metrics that are also scored on the small, medium and large objects apart, at the maps of
    the backbone."""

    spec: Spec
    metrics: tuple[str, ...]
    by_size: tuple[str, ...] = ()


def score_detector(
    detector: Detector,
    dataset: Dataset,
    asked: ScoringSpec,
    *,
    device: str = "cpu",
    cache: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """{"rows": scores at every layer and level, "objects", "object_pixels", "seconds", "cost", "warnings"}, plain JSON.

    A row of objects of one size has "small", "medium" or "large" for its level. object_pixels: median side of the objects in
    the pixels that this detector sees, and the two limits of the sizes. Metrics that are relative to a pool are left to
    `pooled`; their terms are scored. A detector without one of the layers asked for is read at the others. Raises Unextractable.
    """
    names = [name for name in with_terms(asked.metrics) if not METRICS[name].pool_relative]
    spec, lacking = _at_own_layers(asked.spec, detector)
    features = extract(
        reading_of(detector, dataset, spec, device=device), cache=cache, check=check, decode_threads=1
    )
    of_source = [name for name in names if name in OF_SOURCE]
    others = [name for name in names if name not in OF_SOURCE]
    rows: list[Row] = []
    began = time.perf_counter()
    for (layer, level), table in features.layers.items():
        check()
        # regions are read at the local level only
        wanted = others if level == LOCAL else [name for name in others if METRICS[name].rows == "objects"]
        rows += _rows(score(_feature_set(features, table, layer, level), wanted), layer, level)
    if of_source and asked.spec.source_probabilities:
        rows += _rows(_of_source(features, of_source), SOURCE_LAYER, SOURCE_LEVEL)
    limits = terciles(features.object_pixels)
    if asked.by_size:
        rows += _by_size(detector, dataset, features, asked, limits, check)
    return {
        "rows": rows,
        "objects": len(features.labels),
        "regions": 0 if features.regions is None else len(features.regions.labels),
        "object_pixels": {
            "median": round(float(np.median(features.object_pixels)), 3),
            "limits": [round(x, 3) for x in limits],
        },
        # those of the rows add up to more: a sum counts its terms, which have rows of their own
        "seconds": {"features": features.seconds["total"], "scores": round(time.perf_counter() - began, 3)},
        "parameters": features.cost.parameters,
        "ms_per_image": features.cost.ms_per_image,
        "untrained": sorted(features.untrained),
        "warnings": [
            *features.warnings,
            *(f"{name}: this detector has none, so it has no scores there" for name in lacking),
        ],
    }


def pooled(
    rows: Mapping[str, Sequence[Row]], metrics: Sequence[str]
) -> dict[str, tuple[dict[Place, float], dict[Place, str]]]:
    """Candidate to its scores by place and its reasons for having none; pool-relative metrics are added."""
    names = [name for name in metrics if METRICS[name].pool_relative]
    places: dict[tuple[str, str], dict[str, dict[str, Score]]] = defaultdict(lambda: defaultdict(dict))
    found: dict[str, tuple[dict[Place, float], dict[Place, str]]] = {}
    for candidate, own in rows.items():
        scores, undefined = found.setdefault(candidate, ({}, {}))
        for row in own:
            each = Score(row["value"], row["undefined"], 0.0)
            if row["metric"] not in OF_SOURCE and row["level"] not in SIZES:
                places[row["layer"], row["level"]][candidate][row["metric"]] = each
            # terms that nobody asked for are not scores of the study
            if row["metric"] in metrics:
                _put(scores, undefined, (row["metric"], row["layer"], row["level"]), each)
    if names:
        for (layer, level), candidates in places.items():
            for candidate, relative in pool_scores(candidates, names).items():
                for metric, each in relative.items():
                    _put(*found[candidate], (metric, layer, level), each)
    return found


def _put(scores: dict[Place, float], undefined: dict[Place, str], place: Place, each: Score) -> None:
    if each.value is None:
        undefined[place] = each.undefined or "undefined"
    else:
        scores[place] = each.value


def _by_size(
    detector: Detector,
    dataset: Dataset,
    features: Features,
    asked: ScoringSpec,
    limits: tuple[float, float],
    check: Callable[[], None],
) -> list[Row]:
    """Scores of the objects of each size, with the regions that belong to them."""
    own = size_of(features.object_pixels, limits)
    regions = None
    if features.regions is not None:
        regions = size_of(
            region_pixels(features.regions, features.object_pixels, dataset, detector, asked.spec.image_size),
            limits,
        )
    rows: list[Row] = []
    for (layer, level), table in features.layers.items():
        if level != LOCAL or not layer.startswith(BACKBONE):
            continue
        for number, size in enumerate(SIZES):
            check()
            kept = None if regions is None else regions == number
            chosen = _feature_set(features, table, layer, level, own == number, kept)
            rows += _rows(score(chosen, asked.by_size), layer, size)
    return rows


def _at_own_layers(spec: Spec, detector: Detector) -> tuple[Spec, list[str]]:
    """The spec with those of its layers that the detector has, and the names of the others; as it is where it has none."""
    have = {layer.name for layer in detector.layers}
    own = tuple(name for name in spec.layers or () if name in have)
    if not own or ALL in (spec.layers or ()):
        return spec, []
    return replace(spec, layers=own), [name for name in spec.layers or () if name not in have]


def _feature_set(
    features: Features,
    table: np.ndarray,
    layer: str,
    level: str,
    objects: Any = slice(None),
    regions: np.ndarray | None = None,
) -> FeatureSet:
    """The rows `objects` of a table (N, D), and of the regions at that layer those of `regions` (None: all)."""
    read = None
    if features.regions is not None and level == LOCAL and layer in features.region_layers:
        index = slice(None) if regions is None else regions
        read = RegionSet(
            features=features.region_layers[layer][index],
            labels=features.regions.labels[index],
            deltas=features.regions.deltas[index],
            ious=features.regions.ious[index],
            image_ids=features.regions.image_ids[index],
            objects=features.regions.objects[index],
        )
    source = features.source_probabilities
    return FeatureSet(
        features=table[objects],
        labels=features.labels[objects],
        boxes=features.boxes[objects],
        source_probabilities=None if source is None else source[objects],
        image_ids=features.image_ids[objects],
        regions=read,
    )


def _of_source(features: Features, names: Sequence[str]) -> dict[str, Score]:
    if features.source_probabilities is None:
        return {
            name: Score(None, f"no source class probabilities: {features.no_source}", 0.0) for name in names
        }
    return score(_feature_set(features, features.source_probabilities, SOURCE_LAYER, SOURCE_LEVEL), names)


def _rows(found: Mapping[str, Score], layer: str, level: str) -> list[Row]:
    return [
        {
            "metric": name,
            "layer": layer,
            "level": level,
            "value": each.value,
            "undefined": each.undefined,
            "seconds": round(each.seconds, 4),
        }
        for name, each in found.items()
    ]
