"""Small, medium and large: objects of a dataset apart by the pixels that a detector sees of them, regions with their object."""

from __future__ import annotations

import math

import numpy as np

from models_store.detector import Detector
from worker.data.dataset import Dataset
from worker.features.regions import Regions

SIZES = ("small", "medium", "large")


def terciles(pixels: np.ndarray) -> tuple[float, float]:
    """The two limits that part `pixels` (N,) into thirds."""
    low, high = np.quantile(pixels, [1 / 3, 2 / 3])
    return float(low), float(high)


def size_of(pixels: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """(N,) int64 positions in SIZES; a limit belongs to what lies above it."""
    return np.searchsorted(np.asarray(limits), pixels, side="right").astype(np.int64)


def region_pixels(
    regions: Regions, object_pixels: np.ndarray, dataset: Dataset, detector: Detector, image_size: int | None
) -> np.ndarray:
    """(R,) float64: a jittered region has its object's `object_pixels` (N,), a background region the root of its own area as
    the detector sees it, resized with its image."""
    found = np.sqrt(np.prod(regions.boxes[:, 2:] - regions.boxes[:, :2], axis=1))
    of_image = {image.id: image for image in dataset.images}
    for image_id, rows in regions.rows.items():
        image = of_image[image_id]
        height, width = detector.resized(image.height, image.width, image_size)
        found[rows] *= math.sqrt(height * width / (image.height * image.width))
    jittered = regions.jittered
    found[jittered] = object_pixels[regions.objects[jittered]]
    return found
