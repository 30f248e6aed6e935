"""Features of every annotated object, at the layers and levels asked, in one forward pass per image."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

import numpy as np

from worker.features import cache as store
from worker.features import layers as naming
from worker.features.cost import Cost, known
from worker.features.filling import Filling
from worker.features.reading import STEPS, Batch, HowToRead, Progress, Reading, read_into
from worker.features.regions import Regions

_REGION_COLUMNS = ("image_ids", "labels", "objects", "boxes", "deltas", "ious")


@dataclass(frozen=True)
class Features:
    """N objects, row by row the same in every array, ordered by annotation id.

    annotation_ids, image_ids, labels: (N,) int64, labels from 0 into `categories`; boxes: (N, 4) float64 xyxy
    divided by the original image's width and height; layers: (layer, level) to (N, D) float32;
    seconds: wall seconds by step; cost: of one image through the layers read; cached: nothing was run.
    precision: that the network was read in.
    source_probabilities: (N, Cs) float32, rows sum to 1, None where not asked for or not to be had;
    no_source: then why it is not to be had.
    object_pixels: (N,) float64 square root of each object's area in pixels of the input as this detector resizes it.
    regions: those read beside the objects, None where none were asked for; region_layers: layer to (R, D) float32 of the
    regions, local; without the layers that regions are not read from.
    """

    annotation_ids: np.ndarray
    image_ids: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    categories: tuple[str, ...]
    layers: dict[tuple[str, str], np.ndarray]
    seconds: dict[str, float]
    cost: Cost
    object_pixels: np.ndarray
    warnings: tuple[str, ...] = ()
    cached: bool = False
    precision: str = "float32"
    untrained: frozenset[str] = field(default_factory=frozenset)
    source_probabilities: np.ndarray | None = None
    no_source: str | None = None
    regions: Regions | None = None
    region_layers: dict[str, np.ndarray] = field(default_factory=dict)


def extract(
    reading: Reading,
    *,
    cache: Path | None = None,
    cache_max_bytes: int = store.DEFAULT_MAX_BYTES,
    progress: Progress = lambda done, total, message: None,
    **how: Unpack[HowToRead],
) -> Features:
    """Features of the objects of a reading, from the folder `cache` where they are there, else read and kept there.

    Batches hold images of one target size. `progress` gets images done, images in all and a line of text.
    """
    started = time.perf_counter()
    total = len(reading.images)
    if cache is not None and (kept := cached_features(reading, cache)) is not None:
        progress(total, total, "features from the cache")
        return kept

    objects, regions = fillings(reading)

    def take(batch: Batch) -> None:
        objects.add(batch.rows, batch.vectors)
        regions.add(batch.region_rows, batch.region_vectors)

    account = read_into(take, reading, progress=progress, **how)
    tables = objects.complete("objects were not read exactly once")
    region_tables = regions.complete("regions were not read exactly once")
    seconds = account.seconds | {"total": time.perf_counter() - started}
    features = features_of(reading, tables, region_tables, seconds, known(account.cost), account.warnings)
    if cache is not None:
        keep_features(features, reading, cache, cache_max_bytes)
    return features


def fillings(reading: Reading) -> tuple[Filling[tuple[str, str]], Filling[str]]:
    """Empty tables of a reading's objects, by layer and level, and of its regions, by layer."""
    return Filling(len(reading.objects)), Filling(0 if reading.regions is None else len(reading.regions))


def features_of(
    reading: Reading,
    tables: dict[tuple[str, str], np.ndarray],
    region_tables: dict[str, np.ndarray],
    seconds: dict[str, float],
    cost: Cost,
    warnings: Iterable[str],
) -> Features:
    """The features of a reading from its tables: rows (N, D) as in `reading.objects`, (R, D) as in `reading.regions`."""
    objects = reading.objects
    return Features(
        annotation_ids=objects.annotation_ids,
        image_ids=objects.image_ids,
        labels=objects.labels,
        boxes=objects.normalised,
        categories=reading.dataset.categories,
        layers={name: tables[name] for name in reading.wanted},
        seconds={step: round(value, 4) for step, value in seconds.items()},
        cost=cost,
        object_pixels=reading.object_pixels,
        warnings=(*reading.warnings, *warnings),
        precision=reading.precision,
        untrained=frozenset(layer.name for layer in reading.chosen.layers if not layer.trained),
        source_probabilities=tables.get((naming.SOURCE_LAYER, naming.SOURCE_LEVEL)),
        no_source=reading.no_source,
        regions=reading.regions,
        region_layers={name: region_tables[name] for name in reading.region_layers},
    )


def cached_features(reading: Reading, cache: Path) -> Features | None:
    """The features of a reading from the cache folder, None where they are not there."""
    started = time.perf_counter()
    kept = store.load(cache, reading.key)
    return None if kept is None else _restored(*kept, reading, time.perf_counter() - started)


def keep_features(features: Features, reading: Reading, cache: Path, max_bytes: int) -> Path:
    """Writes the features of a reading to the cache folder; the file."""
    return store.save(cache, reading.key, _arrays(features), _facts(features), max_bytes)


def _arrays(features: Features) -> dict[str, np.ndarray]:
    named = {f"features/{layer}/{level}": table for (layer, level), table in features.layers.items()}
    if features.source_probabilities is not None:
        named["source_probabilities"] = features.source_probabilities
    if features.regions is not None:
        named |= {f"regions/{name}": getattr(features.regions, name) for name in _REGION_COLUMNS}
        named |= {f"region_features/{layer}": table for layer, table in features.region_layers.items()}
    return {
        "annotation_ids": features.annotation_ids,
        "image_ids": features.image_ids,
        "labels": features.labels,
        "boxes": features.boxes,
        **named,
    }


def _facts(features: Features) -> dict[str, object]:
    return {
        "categories": list(features.categories),
        "seconds": features.seconds,
        "cost": dataclasses.asdict(features.cost),
        "warnings": list(features.warnings),
        "untrained": sorted(features.untrained),
        "no_source": features.no_source,
    }


def _restored(arrays: dict[str, np.ndarray], facts: dict, reading: Reading, seconds: float) -> Features:
    if not np.array_equal(arrays["annotation_ids"], reading.objects.annotation_ids):
        raise AssertionError("cached features stand for other objects than the sample")
    regions = reading.regions
    if regions is not None and not np.array_equal(arrays["regions/boxes"], regions.boxes):
        raise AssertionError("cached features stand for other regions than those drawn")
    cost = facts["cost"]
    return Features(
        annotation_ids=arrays["annotation_ids"],
        image_ids=arrays["image_ids"],
        labels=arrays["labels"],
        boxes=arrays["boxes"],
        categories=reading.dataset.categories,
        layers={(layer, level): arrays[f"features/{layer}/{level}"] for layer, level in reading.wanted},
        seconds=dict.fromkeys(STEPS, 0.0) | {"total": round(seconds, 4)},
        cost=Cost(**{**cost, "image_hw": tuple(cost["image_hw"])}),
        object_pixels=reading.object_pixels,
        warnings=tuple(facts["warnings"]),
        cached=True,
        precision=reading.precision,
        untrained=frozenset(facts["untrained"]),
        source_probabilities=arrays.get("source_probabilities"),
        no_source=facts["no_source"],
        regions=regions,
        region_layers={name: arrays[f"region_features/{name}"] for name in reading.region_layers},
    )
