"""What a ranking is asked for: checked against the catalogue, with every default filled in."""

import math
from typing import Any

from app.db.documents import DatasetSummary
from app.db.tables import Dataset
from app.errors import Fault, refuse, twice
from app.schemas.rankings import RankBy, RankingCreate, RankingFilters
from app.services import ranking_verify
from app.services.catalogue import (
    ALL_LAYERS,
    default,
    default_names,
    names,
    pool_relative,
    readable_layers,
    region_metrics,
    size_matched,
    source_layer,
    unknown,
)
from app.settings import Settings

MOST_SHARDS = 256


def normalised(asked: RankingCreate, settings: Settings) -> dict[str, Any]:
    """The request with every default filled in. Raises InvalidRequest naming each field at fault."""
    faults: list[Fault] = []
    metrics = _names("metrics", "metric", asked.metrics, names("metrics"), faults)
    level = asked.level or default("level") or "local"
    rank_by = asked.rank_by or RankBy()
    layers = _names("layers", "layer", asked.layers, [*readable_layers(), ALL_LAYERS], faults)
    matched, maps = size_matched()
    if asked.layers is None and rank_by.layer == matched:
        layers = maps
    metrics, regions = _regions(asked, metrics, level, faults)
    _rank_by(rank_by, metrics, layers, level, faults)
    if rank_by.quantity == "gain":
        faults += _no_gain(rank_by.metric, asked)
    faults += twice("/checkpoint_ids", asked.checkpoint_ids)
    if len(asked.checkpoint_ids) > settings.max_candidates:
        message = (
            f"{len(asked.checkpoint_ids)} candidates are more than the {settings.max_candidates} allowed "
            "(DETRANK_MAX_CANDIDATES)"
        )
        faults.append({"pointer": "/checkpoint_ids", "message": message})
    if asked.verify is not None:
        faults += ranking_verify.faults_of(asked.verify, "/verify", settings)
    refuse(faults)
    return {
        "dataset_id": asked.dataset_id,
        "checkpoint_ids": asked.checkpoint_ids,
        "name": asked.name,
        "metrics": metrics,
        "layers": layers,
        # of the default layers a candidate is read at those that it has, or at the nearest ones;
        # one that is asked for by name it must have
        "layers_by_default": asked.layers is None,
        "level": level,
        "max_images": _or_default(asked, "max_images"),
        "image_size": _or_default(asked, "image_size"),
        "seed": asked.seed if asked.seed is not None else default("seed") or 0,
        "calibrate": asked.calibrate,
        "zero_point": asked.zero_point,
        "regions": regions,
        "keep_features": asked.keep_features,
        "shards": asked.shards,
        "shard_images": settings.shard_images,
        "measure_training": asked.measure_training,
        "rank_by": rank_by.model_dump(),
        "filters": (asked.filters or RankingFilters()).model_dump(),
        "verify": None,
        **({"compare_with": asked.compare_with} if asked.compare_with else {}),
    }


def with_shards(request: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The request with `shards` as a number: what it asks for, else by the number of images in the sample."""
    each = request.get("shard_images")
    kept = {name: value for name, value in request.items() if name != "shard_images"}
    shards = request.get("shards")
    if shards is None:
        images = _images_of(request, dataset)
        shards = min(MOST_SHARDS, math.ceil(images / each)) if each and images else 1
    return kept | {"shards": max(1, shards)}


def _images_of(request: dict[str, Any], dataset: Dataset) -> int:
    """The largest number of training images, with and without objects, that are sampled."""
    splits = (dataset.summary or DatasetSummary()).get("splits", {})
    images = splits["train"]["images"] if "train" in splits else 0
    most = request.get("max_images")
    return images if most is None else min(images, most)


def _or_default(asked: RankingCreate, field: str) -> int | None:
    # null is an answer of its own (all images, each checkpoint's own size): what is left out has a default
    return getattr(asked, field) if field in asked.model_fields_set else default(field)


def _names(
    field: str, what: str, asked: list[str] | None, known: list[str], faults: list[Fault]
) -> list[str]:
    if asked is None:
        return default_names(field)
    faults += [
        {"pointer": f"/{field}/{index}", "message": _not_to_be_read(name) or unknown(what, name, known)}
        for index, name in enumerate(asked)
        if name not in known
    ]
    faults += twice(f"/{field}", asked)
    return asked


def _not_to_be_read(name: str) -> str | None:
    place, of_source = source_layer()
    if name != place:
        return None
    return (
        f"{place} is no layer to read features at: ask for the metrics scored there, "
        f"{' and '.join(of_source)}, whatever layers you name"
    )


def _regions(
    asked: RankingCreate, metrics: list[str], level: str, faults: list[Fault]
) -> tuple[list[str], dict[str, Any] | None]:
    """The metrics that the level has, and how regions are drawn: None where no metric reads them."""
    reading = set(region_metrics())
    if level == "global" and asked.metrics is None:
        metrics = [name for name in metrics if name not in reading]
    elif level == "global":
        message = "it reads regions, which are boxes of their own: ask for level local or both"
        faults += [
            {"pointer": f"/metrics/{index}", "message": f"{name} has no level global: {message}"}
            for index, name in enumerate(metrics)
            if name in reading
        ]
    if reading.isdisjoint(metrics):
        if asked.regions is not None:
            message = f"no metric asked for reads regions; these do: {', '.join(sorted(reading))}"
            faults.append({"pointer": "/regions", "message": message})
        return metrics, None
    given = asked.regions.model_dump(exclude_none=True) if asked.regions else {}
    regions = default("regions") | given
    if regions["shift"] == regions["scale"] == 0:
        message = "with shift and scale both 0 there is nothing to correct: let one of them be more"
        faults.append({"pointer": "/regions/shift", "message": message})
    return metrics, regions


def _rank_by(rank_by: RankBy, metrics: list[str], layers: list[str], level: str, faults: list[Fault]) -> None:
    asked_layers = readable_layers() if ALL_LAYERS in layers else layers
    levels = ["local", "global"] if level == "both" else [level]
    place, of_source = source_layer()
    matched, maps = size_matched()
    if not set(maps).isdisjoint(asked_layers):
        asked_layers = [*asked_layers, matched]
    if rank_by.metric in region_metrics():
        levels = ["local"]
    if set(of_source).issuperset([rank_by.metric] if rank_by.metric else metrics):
        asked_layers, levels = [place], ["local"]
    elif rank_by.metric is None and not set(of_source).isdisjoint(metrics):
        asked_layers, levels = [*asked_layers, place], sorted({*levels, "local"}, reverse=True)
    for field, value, computed in (
        ("metric", rank_by.metric, metrics),
        ("layer", rank_by.layer, asked_layers),
        ("level", rank_by.level, levels),
    ):
        if value is not None and value not in computed:
            message = f"cannot rank by {value!r}, which is not computed; computed are: {', '.join(computed)}"
            faults.append({"pointer": f"/rank_by/{field}", "message": message})


def _no_gain(metric: str | None, asked: RankingCreate) -> list[Fault]:
    """Why nothing can be ordered by gains."""
    why = None
    if not asked.zero_point:
        why = "gains need the untrained architectures: ask with zero_point, or rank by the quantity value"
    elif metric in source_layer()[1] or metric in pool_relative():
        why = f"an untrained architecture has no {metric}: rank by the quantity value, or by another metric"
    return [] if why is None else [{"pointer": "/rank_by/quantity", "message": why}]
