"""Counts and histograms of a dataset in canonical form, for people."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from worker.data.canonical import CanonicalImage
from worker.data.object_sizes import relative_sides
from worker.data.splits import SPLITS

# COCO's object sizes by area in pixels (cocodataset.org/#detection-eval).
_SMALL, _MEDIUM = 32**2, 96**2
_BOX_EDGES = (0, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 1024)
_IMAGE_EDGES = (0, 128, 256, 384, 512, 640, 800, 1024, 1333, 2048, 4096)


def _histogram(values: Sequence[float] | np.ndarray, edges: Sequence[int]) -> dict:
    """Counts per bin [edge, next edge); the last bin has no upper edge."""
    counts, _ = np.histogram(np.asarray(values, dtype=np.float64), bins=[*edges, np.inf])
    return {"edges": list(edges), "counts": counts.tolist()}


def _spread(values: Sequence[float]) -> dict | None:
    if not values:
        return None
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


def summarise(
    categories: Sequence[str], images: Sequence[CanonicalImage], splits_from: str, notes: Sequence[str]
) -> dict:
    """The summary as JSON.

    `objects.by_area` uses COCO's limits (small < 32^2 <= medium < 96^2 <= large); `objects.side` is a histogram of
    sqrt(width * height) in pixels, `objects.relative_sides` quantiles of it beside its picture (object_sizes.py; None without
    objects); `image_sizes` one of the longer side. Crowd regions and objects to ignore are
    counted apart.
    """
    objects = [
        (image, row) for image in images for row in image.annotations if not row.crowd and not row.ignore
    ]
    corners = np.array([row.corners for _, row in objects], dtype=np.float64).reshape(-1, 4)
    pictures = np.array(
        [image.picture.width * image.picture.height for image, _ in objects], dtype=np.float64
    )
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1).tolist()
    per_category = Counter(row.category for _, row in objects)
    seen: dict[str, set[int]] = {name: set() for name in categories}
    for image, row in objects:
        seen[row.category].add(id(image))
    longest = [max(image.picture.width, image.picture.height) for image in images]
    return {
        "images": len(images),
        "annotations": len(objects),
        "crowd": sum(row.crowd for image in images for row in image.annotations),
        "ignored": sum(row.ignore and not row.crowd for image in images for row in image.annotations),
        "images_without_boxes": sum(
            all(row.crowd or row.ignore for row in image.annotations) for image in images
        ),
        "categories": [
            {"id": identity, "name": name, "annotations": per_category[name], "images": len(seen[name])}
            for identity, name in enumerate(categories, start=1)
        ],
        "splits": {
            split: {
                "images": sum(image.split == split for image in images),
                "annotations": sum(image.split == split for image, _ in objects),
            }
            for split in SPLITS
            if any(image.split == split for image in images)
        },
        "splits_from": splits_from,
        "objects": {
            "by_area": {
                "small": sum(area < _SMALL for area in areas),
                "medium": sum(_SMALL <= area < _MEDIUM for area in areas),
                "large": sum(area >= _MEDIUM for area in areas),
            },
            "side": _histogram(np.sqrt(areas), _BOX_EDGES),
            "relative_sides": relative_sides(corners, pictures),
            "per_image": _spread(
                [sum(not (row.crowd or row.ignore) for row in image.annotations) for image in images]
            ),
        },
        "image_sizes": {
            "longest_side": _histogram(longest, _IMAGE_EDGES),
            "width": _spread([image.picture.width for image in images]),
            "height": _spread([image.picture.height for image in images]),
        },
        "notes": list(notes),
    }
