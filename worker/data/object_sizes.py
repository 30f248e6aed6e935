"""How large the objects of a dataset are beside their pictures."""

import numpy as np

from worker.data.dataset import Dataset

STEPS = 20


def relative_sides(boxes: np.ndarray, picture_areas: np.ndarray) -> tuple[float, ...] | None:
    """Quantiles 0, 1/STEPS, ..., 1 of the square root of the share of its picture that an object covers, so 0 to 1.

    boxes: (N, 4) xyxy in pixels; picture_areas: (N,) in pixels, of the picture of each. None where N is 0.
    """
    if not len(boxes):
        return None
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    shares = np.sqrt(np.clip(sides.prod(axis=1) / picture_areas, 0, 1))
    return tuple(round(float(value), 4) for value in np.quantile(shares, np.linspace(0, 1, STEPS + 1)))


def sides_in(dataset: Dataset) -> tuple[float, ...] | None:
    """Of all objects that count; None where there is none, or boxes of them are not known."""
    if not dataset.has_boxes:
        return None
    areas = {image.id: image.width * image.height for image in dataset.images}
    counted = ~dataset.aside
    owners = dataset.annotation_image_ids[counted].tolist()
    return relative_sides(dataset.boxes[counted], np.array([areas[id] for id in owners], dtype=np.float64))
