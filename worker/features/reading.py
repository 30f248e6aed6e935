"""What is read from which objects of a dataset, and the reading itself, batch by batch."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypedDict, Unpack

import numpy as np
import torch

from models_store.detector import Detector
from models_store.source import NoSourceClasses
from worker.data.batches import decoded
from worker.data.dataset import Dataset, Image, sample_images
from worker.data.lookahead import in_order
from worker.data.pixels import PixelCache
from worker.features import cache as store
from worker.features import layers as naming
from worker.features.boxes import areas
from worker.features.cost import Cost
from worker.features.errors import Unextractable
from worker.features.forward import Loaded, Reader
from worker.features.grouping import DecodedImage, grouped
from worker.features.inputs import InputCache, group_of
from worker.features.objects import Objects, objects_of
from worker.features.precision import AUTO, precision_of
from worker.features.regions import Regions, RegionSampling, regions_of
from worker.features.spec import Spec

# Goes up whenever the same request would give other numbers than before.
FEATURES_VERSION = 3
# Of a manifest, what the numbers depend on: a new name, licence or note does not spoil the cache.
_MANIFEST_FACTS = ("architecture", "backbone", "input", "layers", "options", "weights_sha256")
# Where batches are prepared in a thread beside the forward pass. On a CPU that would take the time from it.
PREPARED_AHEAD = ("cuda",)
STEPS = ("decode", "prepare", "forward", "pool")
# Regions by all that they follow from, those used last at the end.
_REGIONS: dict[tuple[bytes, int, RegionSampling, int], Regions] = {}
_SAMPLES_KEPT = 2
# images done, images in all, a line of text
Progress = Callable[[int, int, str], None]


class HowToRead(TypedDict, total=False):
    """What changes the speed of reading alone; a batch's size the last bits of float32 too.

    batch_size: images, None for the device's own; on a CUDA device that runs out of memory batches are halved.
    decode_threads: 2 by default. pixels: where decoded pictures are kept, so that the next detector decodes none;
    inputs: where a CPU finds and keeps them as a network takes them. check: called before each batch, may raise to stop.
    """

    batch_size: int | None
    decode_threads: int
    pixels: PixelCache | None
    inputs: InputCache | None
    check: Callable[[], None]


@dataclass(frozen=True)
class Reading:
    """A spec resolved for one detector and one dataset; nothing has been run yet.

    images: those of the sample that hold an object, by id; objects: the rows, the same for every detector;
    wanted: (layer, level) of each table; source_maps: what source probabilities are computed from, empty where
    they are not read, no_source: then why they are not to be had; regions: those that are read too, None where none were
    asked for; key: digest of all that the numbers depend on.
    """

    detector: Detector
    dataset: Dataset
    spec: Spec
    images: tuple[Image, ...]
    objects: Objects
    chosen: naming.Chosen
    wanted: tuple[tuple[str, str], ...]
    source_maps: tuple[str, ...]
    no_source: str | None
    device: torch.device
    precision: str
    key: str
    regions: Regions | None = None

    @property
    def region_layers(self) -> tuple[str, ...]:
        """Layers that regions are read from, always at the local level."""
        return () if self.regions is None else tuple(x.name for x in naming.of_regions(self.chosen.layers))

    @property
    def object_pixels(self) -> np.ndarray:
        """(N,) float64 square root of each object's area, in pixels of the resized input."""
        pixels = {image.id: math.prod(self.target_size(image)) for image in self.images}
        return np.sqrt(
            areas(self.objects.normalised) * [pixels[key] for key in self.objects.image_ids.tolist()]
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the numbers has to know before anything is run."""
        if self.regions is None:
            return self.chosen.warnings
        left = [layer.name for layer in self.chosen.layers if layer.name not in self.region_layers]
        note = f"{', '.join(left)}: regions are not read there, since queries are matched with whole objects"
        return (*self.chosen.warnings, *self.regions.warnings, *([note] if left else []))

    def target_size(self, image: Image) -> tuple[int, int]:
        """Height and width to which the image is resized, before padding."""
        return self.detector.resized(image.height, image.width, self.spec.image_size)


@dataclass(frozen=True)
class Batch:
    """Objects of a few images: how many images, rows (n,) int64 into the reading's objects, and the vectors.

    vectors: (layer, level) to (n, D) float32, source probabilities among them under `SOURCE_LAYER`, `SOURCE_LEVEL`.
    region_rows: (m,) int64 into the reading's regions; region_vectors: layer to (m, D) float32. Empty without regions.
    """

    images: int
    rows: np.ndarray
    vectors: dict[tuple[str, str], np.ndarray]
    region_rows: np.ndarray
    region_vectors: dict[str, np.ndarray]


@dataclass
class Account:
    """What a reading took, filled in while it runs: wall seconds by step, cost of one image, warnings."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    cost: Cost | None = None
    warnings: list[str] = field(default_factory=list)


def reading_of(
    detector: Detector,
    dataset: Dataset,
    spec: Spec,
    *,
    device: str | torch.device = "cpu",
    precision: str = AUTO,
) -> Reading:
    """The sample, its objects and the layers that `spec` asks for.

    The sample and the order of the objects depend on the dataset and the spec only, so rows of two detectors
    stand for the same objects. `precision` "auto" is what `worker.features.precision` found to keep the scores; one
    below float32 runs the forward pass in autocast, and features come out as float32 all the same.

    Raises Unextractable for unknown layers or levels, and when the sample has no object.
    """
    _check_request(spec)
    chosen = naming.choose(detector.layers, spec.layers)
    images = sample_images(dataset, spec.max_images, spec.seed, spec.split)
    objects = objects_of(dataset, images)
    regions = None if spec.regions is None else _drawn(dataset, objects, images, spec.regions, spec.seed)
    wanted = tuple((layer.name, level) for layer in chosen.layers for level in spec.levels)
    source = detector.source_maps() if spec.source_probabilities else ()
    no_source = source.detail if isinstance(source, NoSourceClasses) else None
    source_maps = () if isinstance(source, NoSourceClasses) else source
    device = torch.device(device)
    precision = precision_of(precision, detector.manifest, device)
    return Reading(
        detector=detector,
        dataset=dataset,
        spec=spec,
        images=tuple(image for image in images if image.id in objects.rows),
        objects=objects,
        chosen=chosen,
        wanted=wanted,
        source_maps=source_maps,
        no_source=no_source,
        device=device,
        precision=precision,
        key=_key(
            detector,
            dataset,
            objects,
            wanted,
            (source_maps, no_source),
            spec.image_size,
            device,
            precision,
            regions,
        ),
        regions=regions,
    )


def _drawn(
    dataset: Dataset, objects: Objects, images: Sequence[Image], sampling: RegionSampling, seed: int
) -> Regions:
    """As `regions_of`; those of the last samples are kept, since every candidate and zero point has the same."""
    facts = hashlib.sha256()
    for column in (
        objects.annotation_ids,
        objects.image_ids,
        objects.labels,
        objects.boxes,
        objects.normalised,
        dataset.annotation_image_ids,
        dataset.boxes,
        dataset.iscrowd,
    ):
        facts.update(column.tobytes())
    key = facts.digest(), len(dataset.categories), sampling, seed
    regions = _REGIONS.pop(key, None)
    if regions is None:
        regions = regions_of(dataset, objects, images, sampling, seed)
    _REGIONS[key] = regions
    while len(_REGIONS) > _SAMPLES_KEPT:
        _REGIONS.pop(next(iter(_REGIONS)), None)
    return regions


def read_batches(
    reading: Reading,
    images: Sequence[Image] | None = None,
    *,
    account: Account | None = None,
    **how: Unpack[HowToRead],
) -> Iterator[Batch]:
    """Vectors of the objects of `images` (None: all of the reading's), each object once, as they are read.

    Nothing is kept, so memory does not grow with the number of images. Batches hold images of one target size and
    follow the images alone; which images share one changes the last bits of float32.
    """
    batch_size, check = how.get("batch_size"), how.get("check", lambda: None)
    pixels, inputs = how.get("pixels"), how.get("inputs")
    account = account if account is not None else Account()
    ready = None
    if inputs is not None:
        group = group_of(reading.dataset.digest, reading.detector, reading.spec.image_size)
        ready = partial(inputs.get, group)
    reader = Reader(
        reading.detector,
        reading.chosen.layers,
        reading.spec.levels,
        reading.spec.image_size,
        reading.device,
        reading.precision,
        reading.source_maps,
        reading.regions is not None,
        ready=ready,
    )
    wanted = in_batch_order(reading, images)
    source = decoded(
        wanted,
        threads=how.get("decode_threads", 2),
        kept=None if pixels is None else pixels.of(reading.dataset.digest),
    )
    pictures = _pictures(source, reading, account.seconds)
    batches = grouped(pictures, reader.target_size, lambda size: batch_size or reader.batch_size(size))
    if reading.device.type in PREPARED_AHEAD:
        loads = in_order(reader.load, batches, threads=1, ahead=2)
    else:
        loads = (reader.load(batch) for batch in batches)
    try:
        while (loaded := _waited(loads, account.seconds)) is not None:
            check()
            rows, vectors = reader.read(loaded, account.seconds)
            account.warnings += reader.warnings
            reader.warnings.clear()
            yield _batch(loaded, rows, vectors)
    finally:
        loads.close()
        # What was decoded so far is kept.
        source.close()
        account.cost = reader.meter.cost()


def read_into(
    take: Callable[[Batch], None],
    reading: Reading,
    images: Sequence[Image] | None = None,
    *,
    progress: Progress = lambda done, total, message: None,
    **how: Unpack[HowToRead],
) -> Account:
    """Hands every batch of `images` (None: all of the reading's) to `take`; what that took."""
    account, done = Account(), 0
    total = len(reading.images if images is None else images)
    for batch in read_batches(reading, images, account=account, **how):
        take(batch)
        done += batch.images
        progress(done, total, f"features of {done} of {total} images")
    return account


def in_batch_order(reading: Reading, images: Sequence[Image] | None = None) -> list[Image]:
    """The images (None: all) by the size they are resized to, the reading's most frequent first, then by id.

    So batches fill up while no picture has to wait for others of its size.
    """
    frequency = Counter(map(reading.target_size, reading.images))

    def place(image: Image) -> tuple[int, tuple[int, int], int]:
        size = reading.target_size(image)
        return -frequency[size], size, image.id

    return sorted(reading.images if images is None else images, key=place)


def _check_request(spec: Spec) -> None:
    unknown = [level for level in spec.levels if level not in naming.LEVELS]
    if unknown or not spec.levels:
        raise Unextractable("unknown_level", f"levels are {naming.LEVELS}; got {spec.levels}")


def _pictures(
    source: Iterator[tuple[Image, np.ndarray]], reading: Reading, clock: dict[str, float]
) -> Iterator[DecodedImage]:
    """Decoded images with the rows of their objects and regions; the time spent waiting for them goes to `clock`."""
    objects, regions = reading.objects, reading.regions
    while True:
        begin = time.perf_counter()
        pair = next(source, None)
        clock["decode"] += time.perf_counter() - begin
        if pair is None:
            return
        image, pixels = pair
        rows = objects.rows[image.id]
        of_regions = (
            () if regions is None else (regions.rows[image.id], regions.boxes[regions.rows[image.id]])
        )
        yield DecodedImage(image.id, pixels, rows, objects.boxes[rows], *of_regions)


def _batch(loaded: Loaded, rows: np.ndarray, vectors: dict[tuple[str, str], np.ndarray]) -> Batch:
    return Batch(
        images=len(loaded.pictures),
        rows=rows,
        vectors={place: table for place, table in vectors.items() if place[1] != naming.REGIONS},
        region_rows=np.concatenate([picture.region_rows for picture in loaded.pictures]),
        region_vectors={layer: table for (layer, level), table in vectors.items() if level == naming.REGIONS},
    )


def _waited(loads: Iterator[Loaded], clock: dict[str, float]) -> Loaded | None:
    """The next batch, None after the last; what waiting took besides decoding goes to `clock`."""
    begin, decoding = time.perf_counter(), clock["decode"]
    loaded = next(loads, None)
    clock["prepare"] += time.perf_counter() - begin - (clock["decode"] - decoding)
    return loaded


def _key(
    detector: Detector,
    dataset: Dataset,
    objects: Objects,
    wanted: Sequence[tuple[str, str]],
    source: tuple[tuple[str, ...], str | None],
    image_size: int | None,
    device: torch.device,
    precision: str,
    regions: Regions | None,
) -> str:
    sample = (objects.annotation_ids, objects.image_ids, objects.labels, objects.boxes)
    # Without regions nothing is added, so that what was kept before there were any is still found.
    drawn = () if regions is None else (regions.image_ids, regions.labels, regions.objects, regions.boxes)
    manifest = detector.manifest.to_json()
    return store.key_of(
        ({"regions": _digest(drawn)} if drawn else {})
        | {
            "version": FEATURES_VERSION,
            "torch": torch.__version__,
            "dataset": dataset.digest,
            "sample": _digest(sample),
            "detector": {name: manifest[name] for name in _MANIFEST_FACTS},
            "read": wanted,
            "source": source,
            "image_size": image_size,
            "device": device.type,
            "precision": precision,
        }
    )


def _digest(columns: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for column in columns:
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()
