"""Boxes by how many contours they enclose: EdgeBoxes (Zitnick and Dollar, ECCV 2014), through OpenCV's contributed modules."""

from __future__ import annotations

import cv2
import numpy as np

# The longer side is brought to this: edges of a large picture are mostly texture.
SIDE = 256
MOST = 200
SMOOTH = 1.5
VERSION = f"edge_boxes/1/{SIDE}/{MOST}/opencv {cv2.__version__}"


def edge_boxes(pixels: np.ndarray) -> np.ndarray:
    """(n, 4) float32 xyxy in [0, 1], the highest objectness first, at most MOST of them; the same for every call.

    `pixels` uint8 (h, w, 3) RGB. The published method reads edges from a learned forest, whose file is no part of a
    library; here they are the picture's own gradients, thinned along their direction.
    """
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    edges, along = _edges(cv2.GaussianBlur(small, (0, 0), SMOOTH))
    if not edges.any():
        return np.zeros((0, 4), np.float32)
    finder = cv2.ximgproc.createEdgeBoxes()
    finder.setMaxBoxes(MOST)
    found, _ = finder.getBoundingBoxes(edges, along)
    boxes = np.asarray(found, np.float32).reshape(-1, 4)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return (corners / np.array([*size, *size], np.float32)).clip(0, 1)


def _edges(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thinned magnitude in [0, 1] and the direction along the edge in [0, pi), both float32 (h, w)."""
    dx, dy = cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)
    magnitudes = np.hypot(dx, dy)
    strongest = magnitudes.argmax(axis=2)[..., None]
    magnitude = np.take_along_axis(magnitudes, strongest, 2)[..., 0]
    x = np.take_along_axis(dx, strongest, 2)[..., 0]
    y = np.take_along_axis(dy, strongest, 2)[..., 0]
    # Flat pictures have no edges, only rounding.
    if magnitude.max() < 1e-3:
        return np.zeros_like(magnitude), np.zeros_like(magnitude)
    magnitude = magnitude / magnitude.max()
    norm = np.maximum(np.hypot(x, y), 1e-9)
    rows, columns = np.indices(magnitude.shape, np.float32)
    beside = [
        cv2.remap(
            magnitude,
            (columns + sign * x / norm).astype(np.float32),
            (rows + sign * y / norm).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for sign in (-1, 1)
    ]
    thin = np.where((magnitude >= beside[0]) & (magnitude >= beside[1]), magnitude, 0)
    along = np.mod(np.arctan2(y, x) + np.pi / 2, np.pi)
    return thin.astype(np.float32), along.astype(np.float32)
