"""Features of every annotated object, at the layers and levels asked, in one forward pass per image."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from models_store.detector import Detector
from models_store.source import NoSourceClasses
from worker.data.batches import decoded
from worker.data.dataset import Dataset, Image, sample_images
from worker.features import cache as store
from worker.features import layers as naming
from worker.features.cost import Cost
from worker.features.errors import Unextractable
from worker.features.forward import Reader
from worker.features.grouping import Picture, grouped
from worker.features.objects import Objects, objects_of

# Goes up whenever the same request would give other numbers than before.
FEATURES_VERSION = 1
# Of a manifest, what the numbers depend on: a new name, licence or note does not spoil the cache.
_MANIFEST_FACTS = ("architecture", "backbone", "input", "layers", "options", "weights_sha256")
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Spec:
    """What to extract.

    layers: names, ("all",) for every trained one, or None for the default; levels: "local", "global" or both;
    max_images: at most so many sampled images, None for all; image_size: shorter side in pixels, None for the
    checkpoint's own; seed: of the sample; split: whose images, None for all splits; source_probabilities: also
    the detector's own class probabilities of every object.
    """

    layers: tuple[str, ...] | None = None
    levels: tuple[str, ...] = naming.DEFAULT_LEVELS
    max_images: int | None = None
    image_size: int | None = None
    seed: int = 0
    split: str | None = "train"
    source_probabilities: bool = False


@dataclass(frozen=True)
class Features:
    """N objects, row by row the same in every array, ordered by annotation id.

    annotation_ids, image_ids, labels: (N,) int64, labels from 0 into `categories`; boxes: (N, 4) float64 xyxy
    divided by the original image's width and height; layers: (layer, level) to (N, D) float32;
    seconds: wall seconds by step; cost: of one image through the layers read; cached: nothing was run.
    source_probabilities: (N, Cs) float32, rows sum to 1, None where not asked for or not to be had;
    no_source: then why it is not to be had.
    """

    annotation_ids: np.ndarray
    image_ids: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    categories: tuple[str, ...]
    layers: dict[tuple[str, str], np.ndarray]
    seconds: dict[str, float]
    cost: Cost
    warnings: tuple[str, ...] = ()
    cached: bool = False
    untrained: frozenset[str] = field(default_factory=frozenset)
    source_probabilities: np.ndarray | None = None
    no_source: str | None = None


def extract(
    detector: Detector,
    dataset: Dataset,
    spec: Spec,
    *,
    cache: Path | None = None,
    cache_max_bytes: int = store.DEFAULT_MAX_BYTES,
    device: str | torch.device = "cpu",
    precision: str = "float32",
    batch_size: int | None = None,
    decode_threads: int = 2,
    progress: Callable[[int, int, str], None] = lambda done, total, message: None,
    check: Callable[[], None] = lambda: None,
) -> Features:
    """Features of the objects of a seeded sample of `dataset`.

    The sample and the order of the objects depend on the dataset and the spec only, so rows of two detectors
    stand for the same objects. Batches hold images of one target size and change nothing but speed; on a CUDA
    device that runs out of memory they are halved. `precision` other than float32 runs the forward pass in
    autocast; features come out as float32 all the same. `check` is called before each batch and may raise to
    stop; `progress` gets images done, images in all and a line of text.

    Raises Unextractable for unknown layers or levels, and when the sample has no object.
    """
    _check_request(spec, precision)
    started = time.perf_counter()
    chosen = naming.choose(detector.layers, spec.layers)
    images = sample_images(dataset, spec.max_images, spec.seed, spec.split)
    objects = objects_of(dataset, images)
    device = torch.device(device)
    wanted = [(layer.name, level) for layer in chosen.layers for level in spec.levels]
    source = detector.source_maps() if spec.source_probabilities else ()
    no_source = source.detail if isinstance(source, NoSourceClasses) else None
    source_maps = () if isinstance(source, NoSourceClasses) else source
    key = _key(
        detector, dataset, objects, wanted, (source_maps, no_source), spec.image_size, device, precision
    )
    if cache is not None and (kept := store.load(cache, key)) is not None:
        progress(len(objects.rows), len(objects.rows), "features from the cache")
        return _restored(*kept, objects, dataset, wanted, time.perf_counter() - started)

    reader = Reader(detector, chosen.layers, spec.levels, spec.image_size, device, precision, source_maps)
    filled = np.zeros(len(objects), dtype=np.int64)
    tables: dict[tuple[str, str], np.ndarray] = {}
    clock = {"decode": 0.0, "forward": 0.0, "pool": 0.0}
    done, total = 0, len(objects.rows)
    cost: Cost | None = None
    pictures = _pictures(images, objects, decode_threads, clock)
    for batch in grouped(pictures, reader.target_size, batch_size or reader.batch_size):
        check()
        if cost is None:
            cost = reader.cost(batch[0])
        rows, vectors = reader.read(batch, clock)
        filled[rows] += 1
        for name, values in vectors.items():
            table = tables.setdefault(name, np.empty((len(objects), values.shape[1]), np.float32))
            table[rows] = values
        done += len(batch)
        progress(done, total, f"features of {done} of {total} images")
    if not (filled == 1).all():
        raise AssertionError(
            f"{int((filled != 1).sum())} of {len(objects)} objects were not read exactly once"
        )

    clock["total"] = time.perf_counter() - started
    features = Features(
        annotation_ids=objects.annotation_ids,
        image_ids=objects.image_ids,
        labels=objects.labels,
        boxes=objects.normalised,
        categories=dataset.categories,
        layers={name: tables[name] for name in wanted},
        seconds={step: round(seconds, 4) for step, seconds in clock.items()},
        cost=cost,
        warnings=(*chosen.warnings, *reader.warnings),
        untrained=frozenset(layer.name for layer in chosen.layers if not layer.trained),
        source_probabilities=tables.get((naming.SOURCE_LAYER, naming.SOURCE_LEVEL)),
        no_source=no_source,
    )
    if cache is not None:
        store.save(cache, key, _arrays(features), _facts(features), cache_max_bytes)
    return features


def _check_request(spec: Spec, precision: str) -> None:
    unknown = [level for level in spec.levels if level not in naming.LEVELS]
    if unknown or not spec.levels:
        raise Unextractable("unknown_level", f"levels are {naming.LEVELS}; got {spec.levels}")
    if precision not in PRECISIONS:
        raise Unextractable("unknown_precision", f"precision is one of {PRECISIONS}; got {precision!r}")


def _pictures(
    images: tuple[Image, ...], objects: Objects, threads: int, clock: dict[str, float]
) -> Iterator[Picture]:
    """Decoded images with the rows of their objects; the time spent waiting for them goes to `clock`."""
    usable = [image for image in images if image.id in objects.rows]
    source = decoded(usable, threads=threads)
    while True:
        begin = time.perf_counter()
        pair = next(source, None)
        clock["decode"] += time.perf_counter() - begin
        if pair is None:
            return
        image, pixels = pair
        rows = objects.rows[image.id]
        yield Picture(image.id, pixels, rows, objects.boxes[rows])


def _key(
    detector: Detector,
    dataset: Dataset,
    objects: Objects,
    wanted: list[tuple[str, str]],
    source: tuple[tuple[str, ...], str | None],
    image_size: int | None,
    device: torch.device,
    precision: str,
) -> str:
    sample = hashlib.sha256()
    for column in (objects.annotation_ids, objects.image_ids, objects.labels, objects.boxes):
        sample.update(np.ascontiguousarray(column))
    manifest = detector.manifest.to_json()
    return store.key_of(
        {
            "version": FEATURES_VERSION,
            "torch": torch.__version__,
            "dataset": dataset.digest,
            "sample": sample.hexdigest(),
            "detector": {name: manifest[name] for name in _MANIFEST_FACTS},
            "read": wanted,
            "source": source,
            "image_size": image_size,
            "device": device.type,
            "precision": precision,
        }
    )


def _arrays(features: Features) -> dict[str, np.ndarray]:
    named = {f"features/{layer}/{level}": table for (layer, level), table in features.layers.items()}
    if features.source_probabilities is not None:
        named["source_probabilities"] = features.source_probabilities
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


def _restored(
    arrays: dict[str, np.ndarray],
    facts: dict,
    objects: Objects,
    dataset: Dataset,
    wanted: list[tuple[str, str]],
    seconds: float,
) -> Features:
    if not np.array_equal(arrays["annotation_ids"], objects.annotation_ids):
        raise AssertionError("cached features stand for other objects than the sample")
    cost = facts["cost"]
    return Features(
        annotation_ids=arrays["annotation_ids"],
        image_ids=arrays["image_ids"],
        labels=arrays["labels"],
        boxes=arrays["boxes"],
        categories=dataset.categories,
        layers={(layer, level): arrays[f"features/{layer}/{level}"] for layer, level in wanted},
        seconds={"decode": 0.0, "forward": 0.0, "pool": 0.0, "total": round(seconds, 4)},
        cost=Cost(**{**cost, "image_hw": tuple(cost["image_hw"])}),
        warnings=tuple(facts["warnings"]),
        cached=True,
        untrained=frozenset(facts["untrained"]),
        source_probabilities=arrays.get("source_probabilities"),
        no_source=facts["no_source"],
    )
