"""Boxes sampled from the annotations that a detector has to judge: true ones moved and scaled, and background.

A detector's head never sees true boxes: it tells roughly placed ones from background and corrects them. What it would be
shown is drawn here without a detector, from the annotations and a seed alone, so that every candidate is asked the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.data.dataset import Dataset, Image
from worker.features.boxes import areas, deltas_between, ious, shared_areas
from worker.features.errors import Unextractable
from worker.features.objects import Objects

BACKGROUND = -1
# Hard background covers at least this much of the object it lies beside.
HARD_FROM = 0.05
MOST_PER_OBJECT = 64
# Boxes tried at once for every region, and how often, before a region is given up.
_TRIES = 8
_ROUNDS = 8


@dataclass(frozen=True)
class RegionSampling:
    """How regions are drawn. Raises Unextractable for what cannot be drawn.

    jittered, background: how many for each object. hard: share of the background boxes that lie beside an object and
    partly cover it. shift, scale: the most a true box is moved, in its own sides, and the most the log of each side changes.
    min_iou: of a jittered box with its true box; max_iou: background overlaps every annotated box less.
    max_objects: of an image with more objects, regions are drawn for so many, chosen by the seed.
    """

    jittered: int = 4
    background: int = 4
    hard: float = 0.25
    shift: float = 0.4
    scale: float = 0.5
    min_iou: float = 0.5
    max_iou: float = 0.3
    max_objects: int = 64

    def __post_init__(self) -> None:
        wrong = [
            says
            for holds, says in (
                (1 <= self.jittered <= MOST_PER_OBJECT, f"jittered is 1 to {MOST_PER_OBJECT}"),
                (0 <= self.background <= MOST_PER_OBJECT, f"background is 0 to {MOST_PER_OBJECT}"),
                (0 <= self.hard <= 1, "hard is a share, 0 to 1"),
                (0 <= self.shift <= 1, "shift is 0 to 1"),
                (0 <= self.scale <= 2, "scale is 0 to 2"),
                (self.shift > 0 or self.scale > 0, "shift and scale are not both 0"),
                (0 < self.max_iou <= self.min_iou < 1, "0 < max_iou <= min_iou < 1"),
                (
                    self.hard == 0 or self.max_iou > HARD_FROM,
                    f"hard background needs max_iou above {HARD_FROM}",
                ),
                (self.max_objects >= 1, "max_objects is at least 1"),
            )
            if not holds
        ]
        if wrong:
            raise Unextractable("bad_region_sampling", f"regions cannot be drawn so: {'; '.join(wrong)}")


@dataclass(frozen=True, eq=False)
class Regions:
    """R regions, by image id; of an image first those jittered, object by object, then background.

    image_ids: (R,) int64; labels: (R,) int64, of its object, background the number of categories; objects: (R,) int64 row
    of the true box in the objects, -1 for background; boxes: (R, 4) float64 xyxy in pixels of the original image;
    deltas: (R, 4) float64 dx, dy, dw, dh to the true box, NaN for background; ious: (R,) float64 IoU with the true box,
    for background the most that any annotated box of the image is overlapped; rows: image id to the rows of its regions.
    """

    image_ids: np.ndarray
    labels: np.ndarray
    objects: np.ndarray
    boxes: np.ndarray
    deltas: np.ndarray
    ious: np.ndarray
    rows: dict[int, np.ndarray]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def jittered(self) -> np.ndarray:
        """(R,) bool: whether a region is a true box moved and scaled; the others are background."""
        return self.objects != BACKGROUND


def regions_of(
    dataset: Dataset, objects: Objects, images: Sequence[Image], sampling: RegionSampling, seed: int
) -> Regions:
    """The regions of those `images` that hold objects.

    They follow the annotations, `sampling` and, for each image, the seed and its id, so that neither the order of the images
    nor who reads which of them changes anything. Every chosen object has exactly `sampling.jittered` regions. An image that is
    full gives less background than asked for; a warning counts what is missing.
    """
    kept = sorted((image for image in images if image.id in objects.rows), key=lambda image: image.id)
    chosen = {image.id: _chosen(objects.rows[image.id], image.id, sampling, seed) for image in kept}
    pool = objects.normalised[np.sort(np.concatenate(list(chosen.values())))]
    sizes = pool[:, 2:] - pool[:, :2]
    annotated = _annotated(dataset, kept)
    drawn = [
        _of_image(image, chosen[image.id], objects, annotated[image.id], sizes, sampling, seed)
        for image in kept
    ]
    source, boxes, overlaps = (np.concatenate(column) for column in zip(*drawn, strict=True))
    counts = [len(rows) for rows, _, _ in drawn]
    jittered = source != BACKGROUND
    deltas = np.full((len(source), 4), np.nan)
    deltas[jittered] = deltas_between(boxes[jittered], objects.boxes[source[jittered]])
    rows = np.split(np.arange(len(source)), np.cumsum(counts)[:-1])
    return Regions(
        image_ids=np.repeat(np.array([image.id for image in kept], dtype=np.int64), counts),
        labels=np.where(jittered, objects.labels[source], len(dataset.categories)),
        objects=source,
        boxes=boxes,
        deltas=deltas,
        ious=overlaps,
        rows={image.id: of_image for image, of_image in zip(kept, rows, strict=True)},
        warnings=_warnings(jittered, chosen, objects, sampling),
    )


@dataclass(frozen=True)
class _Annotated:
    """All annotated boxes of an image, crowds and those without area too: boxes (A, 4), crowds (A,) bool."""

    boxes: np.ndarray
    crowds: np.ndarray

    def overlaps(self, regions: np.ndarray) -> np.ndarray:
        """(...) the most that any of them overlaps `regions` (..., 4).

        That is the IoU; with a crowd the share of the region inside it, as in COCO's evaluation: a small box amid a crowd
        has hardly any IoU with it and lies on an object all the same.
        """
        regions = regions[..., None, :]
        found = ious(regions, self.boxes)
        if self.crowds.any():
            crowds = self.boxes[self.crowds]
            found[..., self.crowds] = shared_areas(regions, crowds) / areas(regions)
        return found.max(axis=-1)


def _annotated(dataset: Dataset, images: Sequence[Image]) -> dict[int, _Annotated]:
    wanted = np.array([image.id for image in images], dtype=np.int64)
    rows = np.flatnonzero(np.isin(dataset.annotation_image_ids, wanted))
    rows = rows[np.argsort(dataset.annotation_image_ids[rows], kind="stable")]
    starts = np.searchsorted(dataset.annotation_image_ids[rows], wanted)
    parts = np.split(rows, starts[1:])
    return {
        image.id: _Annotated(dataset.boxes[part], dataset.iscrowd[part])
        for image, part in zip(images, parts, strict=True)
    }


def _chosen(rows: np.ndarray, image_id: int, sampling: RegionSampling, seed: int) -> np.ndarray:
    """The objects of an image that regions are drawn for."""
    if len(rows) <= sampling.max_objects:
        return rows
    return np.sort(np.random.default_rng([seed, image_id, 0]).permutation(rows)[: sampling.max_objects])


def _of_image(
    image: Image,
    rows: np.ndarray,
    objects: Objects,
    annotated: _Annotated,
    sizes: np.ndarray,
    sampling: RegionSampling,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the objects (-1: background), boxes and overlaps of the regions of an image."""
    extent = np.array([image.width, image.height], dtype=np.float64)
    # One generator for each kind, so that asking for more of one leaves the others as they are.
    jitter, near, anywhere = (np.random.default_rng([seed, image.id, kind]) for kind in (1, 2, 3))
    source = np.repeat(rows, sampling.jittered)
    jittered, overlaps = _jittered(objects.boxes[source], extent, sampling, jitter)
    count = sampling.background * len(rows)
    hard = int(sampling.hard * count + 0.5)
    beside = _beside(hard, objects.boxes[rows], extent, annotated, sampling, near)
    free = _free(count - hard, sizes * extent, extent, annotated, sampling, anywhere)
    background = np.concatenate([beside, free])
    return (
        np.concatenate([source, np.full(len(background), BACKGROUND, dtype=np.int64)]),
        np.concatenate([jittered, background]),
        np.concatenate([overlaps, annotated.overlaps(background)]),
    )


def _jittered(
    true: np.ndarray, extent: np.ndarray, sampling: RegionSampling, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) boxes near `true` (n, 4) and (n,) their IoU; the true box itself only where no other fits."""
    found = np.clip(true, 0.0, np.tile(extent, 2))
    waiting = np.arange(len(true))
    for attempt in range(_ROUNDS):
        if not len(waiting):
            break
        near = true[waiting, None]
        less = 0.5**attempt
        tries = _moved(near, less * sampling.shift, less * sampling.scale, extent, rng)
        fits = (ious(tries, near) >= sampling.min_iou) & (tries != near).any(axis=-1)
        done = fits.any(axis=1)
        found[waiting[done]] = tries[done, fits[done].argmax(axis=1)]
        waiting = waiting[~done]
    return found, ious(found, true)


def _beside(
    count: int,
    true: np.ndarray,
    extent: np.ndarray,
    annotated: _Annotated,
    sampling: RegionSampling,
    rng: np.random.Generator,
) -> np.ndarray:
    """At most `count` boxes that partly cover one of `true` (n, 4)."""
    found = []
    for _ in range(_ROUNDS):
        if not count:
            break
        near = true[rng.integers(len(true), size=count), None]
        tries = _moved(near, 1.0, sampling.scale, extent, rng)
        fits = (ious(tries, near) >= HARD_FROM) & (annotated.overlaps(tries) < sampling.max_iou)
        found.append(_first_that(fits, tries))
        count -= len(found[-1])
    return np.concatenate([np.empty((0, 4)), *found])


def _free(
    count: int,
    sizes: np.ndarray,
    extent: np.ndarray,
    annotated: _Annotated,
    sampling: RegionSampling,
    rng: np.random.Generator,
) -> np.ndarray:
    """At most `count` boxes anywhere, of `sizes` (n, 2) in pixels, that overlap nothing much.

    A size that found no place at any of its tries gives way to another.
    """
    found = []
    for _ in range(_ROUNDS):
        if not count:
            break
        sides = np.minimum(np.maximum(sizes[rng.integers(len(sizes), size=count), None], 1.0), extent)
        low = rng.random((count, _TRIES, 2)) * (extent - sides)
        tries = np.concatenate([low, low + sides], axis=-1)
        found.append(_first_that(annotated.overlaps(tries) < sampling.max_iou, tries))
        count -= len(found[-1])
    return np.concatenate([np.empty((0, 4)), *found])


def _first_that(fits: np.ndarray, tries: np.ndarray) -> np.ndarray:
    """Of each row of `tries` (n, k, 4) the first that `fits` (n, k), where one does."""
    done = fits.any(axis=1)
    return tries[done, fits[done].argmax(axis=1)]


def _moved(
    near: np.ndarray, shift: float, scale: float, extent: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(n, tries, 4) boxes: `near` (n, 1, 4) moved and scaled, cut at the image's border.

    Each box draws its own strength, uniform in (0, 1), and then shift and scale uniform in what that leaves of the extents:
    without it, four uniform draws hardly ever leave a box as it is, and few boxes would have an IoU above 0.8.
    """
    shape = (len(near), _TRIES)
    strength = rng.random((*shape, 1))
    moves = rng.uniform(-shift, shift, (*shape, 2)) * strength
    scales = np.exp(rng.uniform(-scale, scale, (*shape, 2)) * strength)
    sides = near[..., 2:] - near[..., :2]
    centres = (near[..., 2:] + near[..., :2]) / 2 + moves * sides
    halves = scales * sides / 2
    low, high = (np.clip(ends, 0.0, extent) for ends in (centres - halves, centres + halves))
    # At least a pixel long, or as long as an object that is shorter.
    least = np.minimum(np.minimum(sides, 1.0), extent)
    short = high - low < least
    low = np.where(short, np.clip((low + high - least) / 2, 0.0, extent - least), low)
    return np.concatenate([low, np.where(short, low + least, high)], axis=-1)


def _warnings(
    jittered: np.ndarray, chosen: dict[int, np.ndarray], objects: Objects, sampling: RegionSampling
) -> tuple[str, ...]:
    wanted = sampling.background * sum(map(len, chosen.values()))
    missing = wanted - int((~jittered).sum())
    crowded = sum(len(objects.rows[image_id]) > len(rows) for image_id, rows in chosen.items())
    notes = []
    if missing:
        notes.append(
            f"{missing} of {wanted} background regions found no place where every annotated box is overlapped less "
            f"than {sampling.max_iou:g}: those images are full"
        )
    if crowded:
        notes.append(
            f"{crowded} images hold more than {sampling.max_objects} objects: regions were drawn for "
            f"{sampling.max_objects} of each, chosen by the seed"
        )
    return tuple(notes)
