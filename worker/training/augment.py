"""Augmentation of a picture with its boxes and masks, by torchvision's transforms with parameters drawn here.

torchvision's transform classes draw from the global generator, which is neither seeded nor safe between threads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as T

from worker.data.masks import decode
from worker.training.examples import LEAST_SIDE, Example
from worker.training.recipe import Augmentation

CROP_TRIES = 10
# Of a cut object at least this share must be left for it to be learned from.
LEAST_VISIBLE = 0.25


def augmented(
    pixels: np.ndarray, example: Example, wanted: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, Tensor]]:
    """(h', w', 3) uint8 and the target of ``Detector.losses``: ``boxes``, ``labels`` and, where known, ``masks``."""
    with torch.no_grad():
        image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
        height, width = pixels.shape[:2]
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(example.boxes), format="XYXY", canvas_size=(height, width)
        )
        labels = torch.from_numpy(example.labels)
        masks = None
        if example.masks is not None:
            masks = tv_tensors.Mask(torch.from_numpy(decode(example.masks, height, width)))
        # One number each, asked for or not: what is drawn later does not depend on what is switched on.
        mirrored, cropped = rng.random(2)
        if mirrored < wanted.flip:
            image, boxes = T.horizontal_flip(image), T.horizontal_flip(boxes)
            masks = masks if masks is None else T.horizontal_flip(masks)
        if cropped < wanted.crop:
            window = _window(rng, height, width, boxes, wanted.crop_least)
            if window is not None:
                areas = _areas(boxes)
                image, boxes = T.crop(image, *window), T.clamp_bounding_boxes(T.crop(boxes, *window))
                kept = (_areas(boxes) >= LEAST_VISIBLE * areas) & (_sides(boxes) >= LEAST_SIDE)
                boxes, labels = boxes[kept], labels[kept]
                masks = masks if masks is None else T.crop(masks, *window)[kept]
        if wanted.colour:
            brightness, contrast, saturation = rng.uniform(1 - wanted.colour, 1 + wanted.colour, 3)
            image = T.adjust_saturation(
                T.adjust_contrast(T.adjust_brightness(image, brightness), contrast), saturation
            )
        target = {"boxes": boxes.as_subclass(Tensor).float(), "labels": labels}
        if masks is not None:
            target["masks"] = masks.as_subclass(Tensor)
        return image.as_subclass(Tensor).permute(1, 2, 0).numpy(), target


def _window(
    rng: np.random.Generator, height: int, width: int, boxes: Tensor, least: float
) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of a crop with the centre of an object in it, where there is one."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    for _ in range(CROP_TRIES):
        shares = rng.uniform(least, 1.0, 2)
        rows, columns = max(1, round(height * shares[0])), max(1, round(width * shares[1]))
        top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
        inside = (centres >= torch.tensor([left, top])) & (
            centres <= torch.tensor([left + columns, top + rows])
        )
        if not len(centres) or bool(inside.all(dim=1).any()):
            return top, left, rows, columns
    return None


def _areas(boxes: Tensor) -> Tensor:
    plain = boxes.as_subclass(Tensor)
    return (plain[:, 2:] - plain[:, :2]).prod(dim=1)


def _sides(boxes: Tensor) -> Tensor:
    plain = boxes.as_subclass(Tensor)
    return (plain[:, 2:] - plain[:, :2]).amin(dim=1)
