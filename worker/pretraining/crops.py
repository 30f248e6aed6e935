"""What is in a region, changed as DETReg changes it before its encoder sees it."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor
from torchvision.transforms import functional as T

# arXiv 2106.04550's code: ColorJitter(0.4, 0.4, 0.4, 0.1) in 8 of 10, grey in 2 of 10, a blur in half of them.
JITTER, HUE = 0.4, 0.1
JITTERED, GREY, BLURRED = 0.8, 0.2, 0.5
BLUR = (0.1, 2.0)


def crops_of(pixels: np.ndarray, boxes: np.ndarray, rng: np.random.Generator, size: int) -> Tensor:
    """(n, 3, size, size) uint8 RGB: the content of (n, 4) xyxy boxes in pixels of a picture (h, w, 3) uint8, augmented."""
    if not len(boxes):
        return torch.zeros((0, 3, size, size), dtype=torch.uint8)
    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels)
    found = []
    for box in boxes.astype(np.float64):
        left, top = max(0.0, box[0]), max(0.0, box[1])
        right, bottom = min(width, max(box[2], left + 1)), min(height, max(box[3], top + 1))
        inside = (min(left, width - 1), min(top, height - 1), right, bottom)
        crop = picture.resize((size, size), Image.Resampling.BILINEAR, box=inside)
        found.append(np.asarray(_changed(crop, rng)))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()


def _changed(crop: Image.Image, rng: np.random.Generator) -> Image.Image:
    # So many numbers each, wanted or not: what is drawn later does not depend on what was switched on.
    jittered, grey, blurred, radius = rng.random(4)
    brightness, contrast, colour = rng.uniform(1 - JITTER, 1 + JITTER, 3)
    hue = rng.uniform(-HUE, HUE)
    order = rng.permutation(4)
    if jittered < JITTERED:
        for step in order.tolist():
            if step == 0:
                crop = ImageEnhance.Brightness(crop).enhance(brightness)
            elif step == 1:
                crop = ImageEnhance.Contrast(crop).enhance(contrast)
            elif step == 2:
                crop = ImageEnhance.Color(crop).enhance(colour)
            else:
                crop = T.adjust_hue(crop, hue)
    if grey < GREY:
        crop = crop.convert("L").convert("RGB")
    if blurred < BLURRED:
        crop = crop.filter(ImageFilter.GaussianBlur(float(BLUR[0] + radius * (BLUR[1] - BLUR[0]))))
    return crop
