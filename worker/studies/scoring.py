"""All scores of one candidate on one dataset, and those that only a pool of candidates has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models_store.detector import Detector
from worker.data.dataset import Dataset
from worker.features.extract import Features, Spec, extract
from worker.features.layers import SOURCE_LAYER, SOURCE_LEVEL
from worker.metrics import METRICS, OF_SOURCE, FeatureSet, Score, score
from worker.metrics.pool import pool_scores, with_terms
from worker.studies.observations import Place

Row = dict[str, Any]  # metric, layer, level, value, undefined


def score_detector(
    detector: Detector,
    dataset: Dataset,
    spec: Spec,
    metrics: Sequence[str],
    *,
    device: str = "cpu",
    cache: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """{"rows": scores at every layer and level, "objects", "seconds", "cost", "warnings"}, plain JSON.

    Metrics that are relative to a pool are left to `pooled`; their terms are scored. Raises Unextractable.
    """
    names = [name for name in with_terms(metrics) if not METRICS[name].pool_relative]
    features = extract(detector, dataset, spec, cache=cache, device=device, check=check, decode_threads=1)
    rows: list[Row] = []
    of_source = [name for name in names if name in OF_SOURCE]
    others = [name for name in names if name not in OF_SOURCE]
    seconds = 0.0
    for (layer, level), table in features.layers.items():
        check()
        found = score(_feature_set(features, table), others)
        seconds += sum(each.seconds for each in found.values())
        rows += [_row(name, layer, level, each) for name, each in found.items()]
    if of_source and spec.source_probabilities:
        found = _of_source(features, of_source)
        rows += [_row(name, SOURCE_LAYER, SOURCE_LEVEL, each) for name, each in found.items()]
    return {
        "rows": rows,
        "objects": len(features.labels),
        "seconds": {"features": features.seconds["total"], "scores": round(seconds, 3)},
        "parameters": features.cost.parameters,
        "ms_per_image": features.cost.ms_per_image,
        "untrained": sorted(features.untrained),
        "warnings": list(features.warnings),
    }


def pooled(rows: Mapping[str, Sequence[Row]], metrics: Sequence[str]) -> dict[str, tuple[dict[Place, float], dict[Place, str]]]:
    """Candidate to its scores by place and its reasons for having none; pool-relative metrics are added."""
    names = [name for name in metrics if METRICS[name].pool_relative]
    places: dict[tuple[str, str], dict[str, dict[str, Score]]] = defaultdict(lambda: defaultdict(dict))
    found: dict[str, tuple[dict[Place, float], dict[Place, str]]] = {}
    for candidate, own in rows.items():
        scores, undefined = found.setdefault(candidate, ({}, {}))
        for row in own:
            each = Score(row["value"], row["undefined"], 0.0)
            if row["metric"] not in OF_SOURCE:
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


def _feature_set(features: Features, table: np.ndarray) -> FeatureSet:
    return FeatureSet(
        features=table,
        labels=features.labels,
        boxes=features.boxes,
        source_probabilities=features.source_probabilities,
        image_ids=features.image_ids,
    )


def _of_source(features: Features, names: Sequence[str]) -> dict[str, Score]:
    if features.source_probabilities is None:
        return {name: Score(None, f"no source class probabilities: {features.no_source}", 0.0) for name in names}
    return score(_feature_set(features, features.source_probabilities), names)


def _row(metric: str, layer: str, level: str, each: Score) -> Row:
    return {"metric": metric, "layer": layer, "level": level, "value": each.value, "undefined": each.undefined}
